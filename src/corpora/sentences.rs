//! Sentences of a passage: the Unicode rules (UAX #29), and what they miss in biomedical abstracts.
//!
//! Four corrections. No boundary lies within a mention. None follows an abbreviation that is written before what it
//! belongs to ("i.v. Azithromycin", "Fig. 2", "vs. Placebo") or an initial. None is a single line end in the middle of
//! a sentence, as in hard-wrapped notes. And one is added before a number that begins a sentence ("… developed
//! rash. 12 patients died"), where the rules look on to the next lower-case word.

use std::ops::Range;

use unicode_segmentation::UnicodeSegmentation;

/// Abbreviations that a sentence does not end with, lower case, without their last full stop.
const ABBREVIATIONS: &[&str] = &[
    "e.g", "i.e", "cf", "viz", "vs", "v", "approx", "ca", "resp", "incl", "esp", "i.v", "i.m", "s.c", "i.p", "i.t",
    "p.o", "b.i.d", "t.i.d", "p.r.n", "q.i.d", "q.d", "fig", "figs", "ref", "refs", "no", "nos", "vol", "pp", "eq",
    "dr", "drs", "prof", "mr", "mrs", "ms", "st", "sp", "spp", "subsp", "var", "dept", "al",
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
        // Only a line end can have made this one. A single one before a lower-case word is a wrapped line.
        let line_ends = space.matches('\n').count().max(space.matches('\r').count());
        let line_ends = line_ends + text[at..at + (text[at..].len() - after.len())].matches('\n').count();
        return line_ends > 1 || !after.starts_with(char::is_lowercase);
    }
    let Some(before) = before.strip_suffix('.') else {
        return true;
    };
    let word = before
        .rsplit(|c: char| c.is_whitespace() || "([{,;:/".contains(c))
        .next()
        .unwrap_or(before);
    // "John F. Kennedy", "Smith, J. Brown", but not "cyclosporin A. The".
    let mut letters = word.chars();
    if let (Some(letter), None) = (letters.next(), letters.next())
        && letter.is_uppercase()
    {
        let previous = before[..before.len() - word.len()].trim_end();
        let previous = previous.rsplit(char::is_whitespace).next().unwrap_or("");
        return !(previous.is_empty()
            || previous.starts_with(char::is_uppercase)
            || previous.ends_with([',', ';', '(', '.']));
    }
    if word.len() > 8 {
        return true;
    }
    let word = word.to_lowercase();
    if !ABBREVIATIONS.contains(&word.as_str()) {
        return true;
    }
    // "No." and "al." end sentences too: they go on only before a number or a bracket.
    match word.as_str() {
        "no" | "al" | "var" | "st" | "v" | "ref" => !after.starts_with(|c: char| c.is_numeric() || "([".contains(c)),
        _ => false,
    }
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
