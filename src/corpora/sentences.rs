//! Sentences of a passage: the Unicode rules (UAX #29), and what they miss in biomedical abstracts.
//!
//! Four corrections. No boundary lies within a mention. None follows an abbreviation that is written before what it
//! belongs to ("i.v. Azithromycin", "Fig. 2", "vs. Placebo") or an initial. None is a single line end after which the
//! sentence goes on, as in hard-wrapped notes: what ends a sentence there is a stop, and around list items and headings the
//! line end itself. And one is added before a number that begins a sentence ("… developed rash. 12 patients died"), where
//! the rules look on to the next lower-case word.

use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation;

/// Abbreviations that a sentence does not end with, lower case, without their last full stop.
const ABBREVIATIONS: &[&str] = &[
    "e.g", "i.e", "cf", "viz", "vs", "v", "approx", "ca", "resp", "incl", "esp", "i.v", "i.m", "s.c", "i.p", "i.t",
    "p.o", "b.i.d", "t.i.d", "p.r.n", "q.i.d", "q.d", "fig", "figs", "ref", "refs", "no", "nos", "vol", "pp", "eq",
    "dr", "drs", "prof", "mr", "mrs", "ms", "st", "sp", "spp", "subsp", "var", "dept", "al",
];

/// Those that a sentence may end with, too: it does where the next word begins one.
const OPEN_ABBREVIATIONS: &[&str] = &[
    "inj", "tab", "tabs", "caps", "susp", "subcut", "iv", "b.w", "vit", "u.s", "u.k",
];

/// Those that a sentence often ends with: it goes on before a number alone. In BC5CDR each unit before a capital letter
/// ends a sentence.
const BEFORE_NUMBERS: &[&str] = &[
    "jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec", "h", "hr", "hrs", "min",
    "mins", "sec", "secs", "d", "wk", "wks", "mo", "yr", "yrs", "g", "kg", "mg", "mcg", "ug", "µg", "μg", "ng", "l",
    "ml", "dl", "iu", "max", "etc", "table", "tables", "pat", "pt", "pts",
];

/// Words that begin sentences and are no names.
const BEGINNINGS: &[&str] = &[
    "a", "after", "all", "also", "although", "an", "and", "as", "at", "both", "but", "by", "for", "from", "he", "her",
    "his", "however", "if", "in", "it", "its", "no", "of", "on", "one", "our", "patients", "she", "since", "that",
    "the", "their", "then", "there", "these", "they", "this", "those", "three", "thus", "to", "two", "we", "when",
    "while", "with",
];

/// What "IV" after them is: a number.
const NUMBERED: &[&str] = &[
    "and", "class", "factor", "grade", "group", "iii", "level", "or", "phase", "stage", "to", "type",
];

/// The sentences of `text` as ascending bytes that cover it all; `mentions` are never divided.
pub fn sentences(text: &str, mentions: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut cuts = Vec::new();
    for (start, sentence) in text.split_sentence_bound_indices() {
        let end = start + sentence.len();
        cuts.extend(
            numbers_after_a_stop(sentence)
                .map(|at| start + at)
                .filter(|&at| is_boundary(text, at)),
        );
        // The rules end a sentence at each line end; of several, the last one does it.
        let more = text[end..].starts_with(['\r', '\n']);
        if end < text.len() && !more && is_boundary(text, end) {
            cuts.push(end);
        }
    }
    let mut mentions: Vec<&Range<usize>> = mentions.iter().collect();
    mentions.sort_by_key(|mention| mention.start);
    let (mut next, mut protected_to) = (0, 0);
    cuts.retain(|&cut| {
        while let Some(mention) = mentions.get(next).filter(|mention| mention.start < cut) {
            protected_to = protected_to.max(mention.end);
            next += 1;
        }
        protected_to <= cut
    });
    let mut sentences = Vec::with_capacity(cuts.len() + 1);
    let mut start = 0;
    for cut in cuts.into_iter().chain([text.len()]) {
        sentences.push(start..cut);
        start = cut;
    }
    sentences
}

/// Whether a boundary that the rules (or the one below) found is one.
fn is_boundary(text: &str, at: usize) -> bool {
    // A look at what is near is enough, and keeps endless whitespace from being read over and over.
    let near = text.floor_char_boundary(at.saturating_sub(NEAR_BYTES))..text.ceil_char_boundary(at + NEAR_BYTES);
    let (text, at) = (&text[near.clone()], at - near.start);
    let before = text[..at].trim_end();
    let space = &text[before.len()..at];
    let after = text[at..].trim_start();
    if !before.trim_end_matches(CLOSING).ends_with(STOPS) {
        // Only a line end can have made this one.
        let line_ends = space.matches('\n').count().max(space.matches('\r').count());
        let line_ends = line_ends + text[at..at + (text[at..].len() - after.len())].matches('\n').count();
        return line_ends > 1 || !is_wrapped(before, after);
    }
    let Some(before) = before.strip_suffix('.') else {
        return true;
    };
    let word = before
        .rsplit(|c: char| c.is_whitespace() || "([{,;:/".contains(c))
        .next()
        .unwrap_or(before);
    // "16. 7" of a scan is a number, "in 1987. 12 patients" is none.
    let digits = before.len() - before.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    if (1..4).contains(&digits) && after.starts_with(|c: char| c.is_ascii_digit()) {
        return false;
    }
    let preceding = || {
        let preceding = before[..before.len() - word.len()].trim_end();
        preceding.rsplit(char::is_whitespace).next().unwrap_or("")
    };
    // "John F. Kennedy", "Smith, J. Brown", but not "cyclosporin A. The".
    let mut letters = word.chars();
    if let (Some(letter), None) = (letters.next(), letters.next())
        && letter.is_uppercase()
    {
        let previous = preceding();
        return !(previous.is_empty()
            || previous.starts_with(char::is_uppercase)
            || previous.ends_with([',', ';', '(', '.']));
    }
    if word.len() > 8 {
        return true;
    }
    let lower = word.to_lowercase();
    // "5mg."
    let unit = lower.trim_start_matches(|c: char| c.is_ascii_digit());
    if BEFORE_NUMBERS.contains(&unit) {
        return !after.starts_with(|c: char| c.is_ascii_digit());
    }
    if OPEN_ABBREVIATIONS.contains(&&*lower) {
        let next = after.split(|c: char| !c.is_alphabetic()).next().unwrap_or("");
        let is_number = lower == "iv" && NUMBERED.contains(&&*preceding().trim_end_matches('/').to_lowercase());
        return is_number || BEGINNINGS.contains(&&*next.to_lowercase());
    }
    let word = lower;
    if !ABBREVIATIONS.contains(&word.as_str()) {
        return true;
    }
    // "No." and "al." end sentences too: they go on only before a number or a bracket.
    match word.as_str() {
        "no" | "al" | "var" | "st" | "v" | "ref" => !after.starts_with(|c: char| c.is_numeric() || "([".contains(c)),
        _ => false,
    }
}

/// Whether a sentence goes on over a single line end that no stop stands before.
fn is_wrapped(before: &str, after: &str) -> bool {
    if after.starts_with(char::is_lowercase) {
        return true;
    }
    let line_before = before.rsplit(['\n', '\r']).next().unwrap_or(before).trim_start();
    let line_after = after.split(['\n', '\r']).next().unwrap_or(after).trim_end();
    !line_before.ends_with(':')
        && !is_list_item(line_after)
        && !begins_with_heading(line_after)
        && is_in_capitals(line_before) == is_in_capitals(line_after)
}

/// "- rash", "2. rash", "3) rash".
fn is_list_item(line: &str) -> bool {
    let marked = line.trim_start_matches(|c: char| c.is_ascii_digit());
    let number = line.len() - marked.len();
    let rest = match number {
        0 => line.strip_prefix(['-', '*', '+', '•', '·', '–', '—']),
        1 | 2 => marked.strip_prefix(['.', ')']),
        _ => None,
    };
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
}

/// "Allergies: none", of at most four words.
fn begins_with_heading(line: &str) -> bool {
    let Some((heading, rest)) = line.split_once(':') else {
        return false;
    };
    heading.starts_with(char::is_uppercase)
        && (rest.is_empty() || rest.starts_with(char::is_whitespace))
        && heading.split_whitespace().count() <= 4
}

/// "PAST HISTORY", but not "HIT".
fn is_in_capitals(line: &str) -> bool {
    let letters = line.chars().filter(|c| c.is_alphabetic()).count();
    letters > 4 && !line.chars().any(char::is_lowercase)
}

const NEAR_BYTES: usize = 200;
const STOPS: [char; 7] = ['.', '!', '?', '…', '。', '！', '？'];
/// What may stand between a stop and the sentence's end.
const CLOSING: [char; 7] = [')', ']', '"', '\'', '”', '’', '»'];

/// Where ". " is followed by a digit.
fn numbers_after_a_stop(sentence: &str) -> impl Iterator<Item = usize> {
    let bytes = sentence.as_bytes();
    memchr::memchr_iter(b'.', bytes).filter_map(move |stop| {
        let spaces = bytes[stop + 1..].iter().take_while(|&&byte| byte == b' ').count();
        let at = stop + 1 + spaces;
        (spaces > 0 && bytes.get(at).is_some_and(u8::is_ascii_digit)).then_some(at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split<'a>(text: &'a str, mentions: &[Range<usize>]) -> Vec<&'a str> {
        sentences(text, mentions)
            .into_iter()
            .map(|range| text[range].trim())
            .collect()
    }

    #[test]
    fn sentences_end_where_a_reader_would_end_them() {
        for expected in [
            &["Aspirin (p < 0.05) caused bleeding.", "The patient died."][..],
            &["He got 5 mg i.v. Azithromycin and e.g. Rash came.", "Next."],
            &["See Fig. 2 for No. 3 of them.", "Smith et al. (2001) disagree."],
            &["A rash developed.", "12 patients died."],
            &["Serum levels (vs. Placebo) rose.", "\"Why?\"", "Unknown."],
            &["It was cyclosporin A.", "The dose was 5 mg."],
            &["Reported by John F. Smith, J. R. Brown and others.", "End."],
            &["Did he die?", "No.", "He lived!"],
            &["5-FU was given.", "5-FU was stopped."],
            &["The answer was no.", "All died."],
            &[
                "On Jan. 12 it began.",
                "On Feb. 3 it ended in Dec.",
                "He died in 2012.",
                "12 lived.",
            ],
            &["Within 2 hrs. 5 mg of it (0.5 mg. 3 times, max. 10 mg) did it to pat. 3 (Table. 1)."],
            &[
                "It took 24 h.",
                "Aspirin was given at 5 mg.",
                "Rash came.",
                "He took others, etc.",
                "Rash went.",
            ],
            &["It fell from 16. 7 +/- 5. 3 to P=0. 048 in 1 month.", "164 lived."],
            &["Rash after Inj. Ceftriaxone and Tab. Aspirin, IV. Heparin, subcut. Heparin, 5 mg/kg b.w. Aspirin."],
            &[
                "The U.S. Food and Drug Administration met in the U.S.",
                "The vit. K was given i.v. Aspirin.",
            ],
            &[
                "It was grade IV.",
                "Patients of stages II to IV.",
                "All had III/IV.",
                "Rash came.",
            ],
        ] {
            assert_eq!(split(&expected.join(" "), &[]), expected);
        }
    }

    #[test]
    fn a_wrapped_line_goes_on_and_a_blank_line_does_not() {
        assert_eq!(
            split("The patient had\nsevere rash.\nHe died", &[]),
            ["The patient had\nsevere rash.", "He died"]
        );
        assert_eq!(split("Heparin (HIT)\nin adults", &[]).len(), 1);
        assert_eq!(split("History\n\nnone known", &[]).len(), 2);
        assert_eq!(split("Allergies:\nPenicillin", &[]).len(), 2);
    }

    #[test]
    fn a_line_that_no_stop_ends_goes_on_unless_an_item_or_a_heading_begins() {
        for one in [
            "Bleeding was caused by\nWarfarin.",
            "Pt on warfarin\n5 mg daily",
            "Rash (from\r\n(S)-warfarin)",
            "Heparin gave\nHIT",
            "HEPARIN CAUSED\nSEVERE HIT AND RASH",
        ] {
            assert_eq!(split(one, &[]).len(), 1, "{one}");
        }
        for two in [
            "Aspirin\n\nWarfarin",
            "Pt on warfarin.\n5 mg daily",
            "Aspirin daily\n- Warfarin daily",
            "Aspirin daily\n2) Warfarin daily",
            "Aspirin daily\nAllergies: none",
            "Aspirin daily\nPhysical Examination:",
            "MEDICATIONS\nAspirin",
            "Aspirin daily\nPAST HISTORY",
        ] {
            assert_eq!(split(two, &[]).len(), 2, "{two}");
        }
    }

    #[test]
    fn no_boundary_divides_a_mention() {
        let text = "He had Coli. Sepsis came. He died.";
        assert_eq!(split(text, &[]).len(), 3);
        let mention = text.find("Coli").unwrap()..text.find(" came").unwrap();
        assert_eq!(split(text, &[mention]), ["He had Coli. Sepsis came.", "He died."]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn sentences_cover_the_text_in_order(
            text in "([a-zA-Z0-9.!? \n\r()\"é😀\u{2029}]|i\\.v\\. |\\. [0-9])*",
            picks in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..4),
        ) {
            let bounds: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
            let mentions: Vec<Range<usize>> = picks
                .iter()
                .map(|(a, b)| (bounds[a.index(bounds.len())], bounds[b.index(bounds.len())]))
                .filter(|(a, b)| a < b)
                .map(|(a, b)| a..b)
                .collect();
            let found = sentences(&text, &mentions);
            let mut end = 0;
            for sentence in &found {
                prop_assert_eq!(sentence.start, end);
                prop_assert!(text.is_char_boundary(sentence.start) && (sentence.end > sentence.start || text.is_empty()));
                for mention in &mentions {
                    let inside = sentence.start <= mention.start && mention.end <= sentence.end;
                    let outside = mention.end <= sentence.start || sentence.end <= mention.start;
                    prop_assert!(inside || outside);
                }
                end = sentence.end;
            }
            prop_assert_eq!(end, text.len());
        }
    }
}
