//! Sentences of a passage: the Unicode rules (UAX #29), and what they miss in biomedical abstracts and clinical notes.
//!
//! No boundary lies within a mention. None follows an abbreviation that is written before what it belongs to
//! ("Fig. 2", "vs. Placebo", "i.v. Azithromycin" but not "i.v. The") or an initial. None is a single line end after which
//! the sentence goes on, as in hard-wrapped notes: what ends a sentence there is a stop. A blank line, list items and
//! headings begin a new one whatever stands before them. And a boundary is added before a number that begins a sentence
//! ("… developed rash. 12 patients died"), where the rules look on to the next lower-case word.

use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation;

/// Abbreviations that a sentence does not end with, lower case, without their last full stop.
const ABBREVIATIONS: &[&str] = &[
    "e.g", "i.e", "cf", "viz", "vs", "v", "approx", "resp", "incl", "esp", "fig", "figs", "ref", "refs", "no", "nos",
    "vol", "pp", "eq", "dr", "drs", "prof", "mr", "mrs", "ms", "sp", "spp", "subsp", "var", "dept", "al",
];

/// Those that a sentence may end with, too: it does where the next word begins one.
const OPEN_ABBREVIATIONS: &[&str] = &[
    "i.v", "i.m", "s.c", "i.p", "i.t", "p.o", "b.i.d", "t.i.d", "p.r.n", "q.i.d", "q.d", "inj", "tab", "tabs", "caps",
    "susp", "subcut", "iv", "b.w", "y.o", "vit", "u.s", "u.k", "ca", "st", "inc", "co", "corp", "ltd",
];

/// Those that a sentence often ends with: it goes on before a number alone. In BC5CDR each unit before a capital letter
/// ends a sentence.
const BEFORE_NUMBERS: &[&str] = &[
    "jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec", "h", "hr", "hrs", "min",
    "mins", "sec", "secs", "d", "wk", "wks", "mo", "yr", "yrs", "g", "kg", "mg", "mcg", "ug", "µg", "μg", "ng", "l",
    "ml", "dl", "iu", "max", "etc", "table", "tables", "pat", "pt", "pts", "s.d", "s.e", "s.e.m",
];

/// Abbreviations that are other words in capitals, and end a sentence then: "cystic fibrosis (CF)", "mass spectrometry
/// (MS)". Where all is in capitals they are what they are elsewhere.
const OTHER_IN_CAPITALS: &[&str] = &[
    "al", "ca", "cf", "co", "dr", "eq", "mr", "mrs", "ms", "pp", "resp", "sp", "st", "var",
];

/// Words that begin sentences and are no names.
const BEGINNINGS: &[&str] = &[
    "a",
    "after",
    "all",
    "also",
    "although",
    "an",
    "and",
    "as",
    "at",
    "because",
    "before",
    "between",
    "both",
    "but",
    "by",
    "despite",
    "due",
    "during",
    "each",
    "every",
    "few",
    "for",
    "four",
    "from",
    "further",
    "furthermore",
    "he",
    "hence",
    "her",
    "here",
    "his",
    "however",
    "if",
    "in",
    "it",
    "its",
    "many",
    "moreover",
    "most",
    "nevertheless",
    "no",
    "none",
    "not",
    "of",
    "on",
    "once",
    "one",
    "only",
    "other",
    "our",
    "over",
    "patients",
    "several",
    "she",
    "similarly",
    "since",
    "some",
    "somewhat",
    "subsequently",
    "such",
    "that",
    "the",
    "their",
    "then",
    "there",
    "thereafter",
    "therefore",
    "these",
    "they",
    "this",
    "those",
    "three",
    "through",
    "throughout",
    "thus",
    "to",
    "together",
    "two",
    "under",
    "until",
    "upon",
    "we",
    "when",
    "where",
    "whether",
    "which",
    "while",
    "within",
    "without",
    "with",
];

/// What "IV" after them is: a number.
const NUMBERED: &[&str] = &[
    "and", "class", "factor", "grade", "group", "iii", "level", "or", "phase", "stage", "to", "type",
];

/// What a single capital after them is: a kind of it, and no initial.
const LETTERED: &[&str] = &[
    "amphotericin",
    "arm",
    "case",
    "class",
    "cyclosporin",
    "factor",
    "figure",
    "grade",
    "group",
    "hepatitis",
    "panel",
    "part",
    "patient",
    "phase",
    "stage",
    "study",
    "table",
    "type",
    "vitamin",
];

/// The sentences of `text` as ascending bytes that cover it all; `mentions` are never divided.
pub fn sentences(text: &str, mentions: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut cuts = Vec::new();
    let mut start = 0;
    for end in ends_by_rules(text) {
        let sentence = &text[start..end];
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
        start = end;
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

/// Where the rules end sentences. From each space and bracket after a stop they look on to the next letter, which is the square of
/// a column that is padded with blanks; to them a long run of either is like a short one, so that is what they see.
fn ends_by_rules(text: &str) -> Vec<usize> {
    const MOST: usize = 8;
    let kind = |c: char| match c {
        '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}' => 0,
        '(' | ')' | '[' | ']' | '{' | '}' | '"' | '\'' => 2,
        c => usize::from(c.is_whitespace()),
    };
    let mut short = String::with_capacity(text.len());
    // Places in `short` and how many bytes have been left out up to there.
    let mut gaps = vec![(0, 0)];
    let (mut last, mut run, mut left_out) = (0, 0, 0);
    for c in text.chars() {
        let kind = kind(c);
        run = if kind == last && kind > 0 { run + 1 } else { 0 };
        last = kind;
        if run < MOST {
            short.push(c);
            continue;
        }
        left_out += c.len_utf8();
        match gaps.last_mut() {
            Some(gap) if gap.0 == short.len() => gap.1 = left_out,
            _ => gaps.push((short.len(), left_out)),
        }
    }
    let mut gap = 0;
    let ends = short.split_sentence_bound_indices().map(|(start, sentence)| {
        let end = start + sentence.len();
        while gaps.get(gap + 1).is_some_and(|next| next.0 <= end) {
            gap += 1;
        }
        end + gaps[gap].1
    });
    ends.collect()
}

/// Whether a boundary that the rules (or the one below) found is one.
fn is_boundary(text: &str, at: usize) -> bool {
    // A look at what is near is enough, and keeps endless whitespace from being read over and over.
    let near = text.floor_char_boundary(at.saturating_sub(NEAR_BYTES))..text.ceil_char_boundary(at + NEAR_BYTES);
    let (text, at) = (&text[near.clone()], at - near.start);
    let before = text[..at].trim_end();
    let after = text[at..].trim_start();
    let line_ends = line_ends(&text[before.len()..at]) + line_ends(&text[at..text.len() - after.len()]);
    if line_ends > 1 || line_ends == 1 && begins_anew(before, after) {
        return true;
    }
    let closed = before.trim_end_matches(CLOSING);
    if !closed.ends_with(STOPS) {
        // A line end made this one, or a stop of another script.
        return line_ends == 0;
    }
    !goes_on_after_stop(closed, closed.len() < before.len(), after)
}

/// Whether a sentence goes on after the stop that ends `before`, behind a closing bracket or quote if `is_closed`.
fn goes_on_after_stop(before: &str, is_closed: bool, after: &str) -> bool {
    let Some(before) = before.strip_suffix('.') else {
        return false;
    };
    let begins_with_digit = after.starts_with(|c: char| c.is_ascii_digit());
    let word = before
        .rsplit(|c: char| c.is_whitespace() || "([{,;:/".contains(c))
        .next()
        .unwrap_or(before)
        .trim_start_matches(|c: char| !c.is_alphanumeric());
    // "16. 7" of a scan is a number, "in 1987. 12 patients" is none.
    let digits = before.len() - before.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    if !is_closed && (1..4).contains(&digits) && begins_with_digit {
        return true;
    }
    if word.starts_with(char::is_uppercase) && begins_with_insertion(after) {
        return true;
    }
    let left = &before[..before.len() - word.len()];
    let preceding = || left.trim_end().rsplit(char::is_whitespace).next().unwrap_or("");
    // "John F. Kennedy", "Smith, J. Brown", "by J. Brown", but not "cyclosporin A. The", "Vitamin K. The", "69 U/L. Then".
    let mut letters = word.chars();
    if let (Some(letter), None) = (letters.next(), letters.next())
        && letter.is_uppercase()
    {
        let previous = preceding();
        return !is_closed
            && !left.ends_with('/')
            && !begins_sentence(after)
            && !LETTERED.contains(&&*previous.to_lowercase())
            && (previous.is_empty()
                || begins_with_initial(after)
                || previous.starts_with(char::is_uppercase)
                || previous.ends_with([',', ';', '(', '.'])
                || previous == "by");
    }
    if word.len() > 8 {
        return false;
    }
    let lower = word.to_lowercase();
    // "5mg."
    let unit = lower.trim_start_matches(|c: char| c.is_ascii_digit());
    if BEFORE_NUMBERS.contains(&unit) {
        return begins_with_digit;
    }
    if OTHER_IN_CAPITALS.contains(&&*lower) && is_in_capitals(word) {
        let next = after.split(char::is_whitespace).next().unwrap_or("");
        return (preceding().is_empty() || is_in_capitals(preceding())) && is_in_capitals(next);
    }
    if OPEN_ABBREVIATIONS.contains(&&*lower) {
        let is_number = lower == "iv" && NUMBERED.contains(&&*preceding().trim_end_matches('/').to_lowercase());
        return !is_number && !begins_sentence(after);
    }
    // "No." and "al." end sentences too: they go on only before a number or a bracket.
    match lower.as_str() {
        "no" | "al" | "var" | "v" | "ref" => after.starts_with(|c: char| c.is_numeric() || "([".contains(c)),
        word => ABBREVIATIONS.contains(&word),
    }
}

/// In whitespace.
fn line_ends(space: &str) -> usize {
    let of = |ends: &[char]| space.chars().filter(|c| ends.contains(c)).count();
    of(&['\n', '\u{85}', '\u{2028}']).max(of(&['\r'])) + 2 * of(&['\u{2029}'])
}

/// "The patient", but not "A. Smith".
fn begins_sentence(after: &str) -> bool {
    let word = after.split(|c: char| !c.is_alphabetic()).next().unwrap_or("");
    !begins_with_initial(after) && BEGINNINGS.contains(&&*word.to_lowercase())
}

/// "A. Smith".
fn begins_with_initial(after: &str) -> bool {
    let mut characters = after.chars();
    characters.next().is_some_and(char::is_uppercase) && characters.next() == Some('.')
}

/// "(Anacardiaceae), on …", "(Araliaceae) was …": what follows an author's abbreviated name.
fn begins_with_insertion(after: &str) -> bool {
    let Some((inside, rest)) = after.strip_prefix('(').and_then(|rest| rest.split_once(')')) else {
        return false;
    };
    let rest_begins = rest.trim_start();
    // "(+) Pentazocine" begins a sentence.
    inside.chars().filter(|c| c.is_alphabetic()).count() > 3
        && !inside.ends_with(STOPS)
        && (rest.starts_with([',', ';'])
            || rest_begins.len() < rest.len() && rest_begins.starts_with(char::is_lowercase))
}

/// Whether what comes after a single line end is an item, a heading or what follows one, whatever stands before.
fn begins_anew(before: &str, after: &str) -> bool {
    let line_before = before.rsplit(['\n', '\r']).next().unwrap_or(before).trim_start();
    let line_after = after.split(['\n', '\r']).next().unwrap_or(after).trim_end();
    is_list_item(line_after)
        || !after.starts_with(char::is_lowercase)
            && (line_before.ends_with(':')
                || begins_with_heading(line_after)
                || is_heading_beside(line_before, line_after)
                || is_heading_beside(line_after, line_before))
}

/// "PAST HISTORY" beside a line that is not in capitals too; but not "DRESS." at the end of a wrapped sentence.
fn is_heading_beside(line: &str, other: &str) -> bool {
    is_line_in_capitals(line) && !line.ends_with(['.', ',', ';']) && !is_line_in_capitals(other)
}

/// "- rash", "● rash", "2. rash", "2.Rash", "3) rash", "#3 rash", "(3) Rash", "b) rash".
fn is_list_item(line: &str) -> bool {
    let ends = |rest: &str| rest.is_empty() || rest.starts_with(char::is_whitespace);
    let is_upper = |rest: &str| rest.starts_with(char::is_uppercase);
    if line.starts_with(BULLETS) {
        return true;
    }
    if let Some(rest) = line.strip_prefix(['-', '*', '+', '–', '—', '·']) {
        return ends(rest) || is_upper(rest);
    }
    let (line, in_brackets, numbered) = match line.strip_prefix(['(', '#']) {
        Some(rest) => (rest, line.starts_with('('), line.starts_with('#')),
        None => (line, false, false),
    };
    let marked = line.trim_start_matches(|c: char| c.is_ascii_digit());
    match (line.len() - marked.len(), marked.chars().next()) {
        (1 | 2, _) if in_brackets => marked.strip_prefix(')').is_some_and(|rest| is_upper(rest.trim_start())),
        (1 | 2, _) if numbered => ends(marked.trim_start_matches(['.', ')', ':'])),
        (1 | 2, Some('.' | ')')) => ends(&marked[1..]) || is_upper(&marked[1..]),
        (1 | 2, Some(':' | '-')) => is_upper(marked[1..].trim_start()) && ends(&marked[1..]),
        (0, Some('a'..='z' | 'A'..='Z')) => {
            !numbered && !in_brackets && marked[1..].strip_prefix(')').is_some_and(ends)
        }
        _ => false,
    }
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
fn is_line_in_capitals(line: &str) -> bool {
    line.chars().filter(|c| c.is_alphabetic()).count() > 4 && is_in_capitals(line)
}

/// Of two letters or more, all capitals.
fn is_in_capitals(text: &str) -> bool {
    text.chars().filter(|c| c.is_alphabetic()).count() > 1 && !text.chars().any(char::is_lowercase)
}

const NEAR_BYTES: usize = 200;
/// That stand for nothing else. The first is what a word processor's own font makes of one.
const BULLETS: [char; 10] = ['\u{f0b7}', '•', '●', '○', '◦', '▪', '■', '▫', '‣', '⁃'];
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
            &["Aspirin, as reported by J. Smith, gave rash.", "End."],
            &["They were treated with A.", "The others were not."],
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
            "HEPARIN CAUSED\nSEVERE HIT AND RASH.",
            "He was started on lamotrigine and developed\nSJS/TEN.",
            "Allopurinol led to fever and\nDRESS,\nand was stopped",
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
    fn a_blank_line_an_item_or_a_heading_begins_a_sentence_whatever_stands_before() {
        for expected in [
            &["Amoxicillin 500 mg b.i.d.", "PAST HISTORY: rash after penicillin."][..],
            &["Takes aspirin 81 mg.", "2 days later rash came."],
            &["Score was 5.", "2 patients had rash."],
            &["Seen by Dr.", "Rash was seen."],
        ] {
            assert_eq!(split(&expected.join("\n\n"), &[]), expected);
        }
        for expected in [
            &[
                "warfarin 5 mg p.o. q.d.",
                "2) Heparin 5000 U s.c. b.i.d.",
                "- bleeding on aspirin.",
            ][..],
            &["Ceftriaxone 1 g i.v.", "- Rash noted"],
            &["Continue warfarin 5 mg q.d.", "ADVERSE REACTIONS: rash."],
            &["Medications", "● Aspirin", "▪ Warfarin", "\u{f0b7}Rash"],
            &[
                "Aspirin",
                "-Warfarin",
                "b) rash",
                "(3) Fever",
                "#4 nausea",
                "5- Pain",
                "6: Itch",
            ],
        ] {
            assert_eq!(split(&expected.join("\n"), &[]), expected);
        }
        for one in [
            "He took vitamin\n-rich food",
            "a ratio of\n1:1000 of it",
            "rash (see\n(3) there)",
            "pH of\n5-Fluorouracil",
        ] {
            assert_eq!(split(one, &[]).len(), 1, "{one}");
        }
    }

    #[test]
    fn a_sentence_ends_after_an_abbreviation_or_a_letter_where_the_next_one_clearly_begins() {
        for expected in [
            &["Aspirin 81 mg p.o. q.d.", "The patient developed rash."][..],
            &[
                "Took it t.i.d.",
                "She vomited.",
                "Vancomycin i.v.",
                "He had red man syndrome.",
            ],
            &[
                "Vitamin K.",
                "The bleeding stopped.",
                "It was Amphotericin B.",
                "Rash came.",
            ],
            &["AST 80 IU/L.", "Amoxicillin stopped.", "Group A.", "Response was good."],
            &[
                "Given for MS.",
                "The rash came.",
                "In CF.",
                "Patients had it.",
                "Serum Ca.",
                "The rash went.",
            ],
            &["He lives in Main St.", "The rash came."],
        ] {
            assert_eq!(split(&expected.join(" "), &[]), expected);
        }
        for one in [
            "Gentamicin (Sigma, St. Louis, MO) caused it in a patient with a St. Jude valve.",
            "Intravenous (i.v.) Vancomycin caused rash (mean+/-S.D.) 24.5 times.",
            "Mangifera indica Linn. (Anacardiaceae), and Panax ginseng L. (Araliaceae) caused rash.",
            "Aspirin (Bayer Inc. Canada and Bayer Co. Ltd., Tokyo) caused rash.",
            "Dr. Smith, J. A. Brown and J. I. Black saw Ms. Green.",
            "Vancomycin was given to a 72 y.o. M who then got a rash.",
            "SEEN BY DR. SMITH AND MR. BLACK",
        ] {
            assert_eq!(split(one, &[]), [one]);
        }
        assert_eq!(split("Rash came. (S)-Warfarin was stopped.", &[]).len(), 2);
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
        fn runs_may_be_shortened_before_the_rules_see_them(
            text in "([aAé1]|\\. |[.!?,] {1,30}|\\.[)\"']{1,30}|[ \n\r\u{2029}\u{a0}]{1,30}|[(\\[\"]{9,20})*",
        ) {
            let ends: Vec<usize> = text.split_sentence_bound_indices().map(|(start, s)| start + s.len()).collect();
            prop_assert_eq!(ends_by_rules(&text), ends);
        }

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
