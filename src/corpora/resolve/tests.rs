use super::*;
use crate::corpora::document::{RawBlock, RawMention, RawPassage, Unit};
use crate::corpora::report::{Place, Reason};
use proptest::prelude::*;

struct Collected(Vec<Problem>);

impl Report for Collected {
    fn report(&mut self, problem: Problem) -> Result<(), CorpusError> {
        self.0.push(problem);
        Ok(())
    }
}

fn mention(home: Option<(usize, usize)>, start: u64, end: u64, text: &str) -> RawMention {
    RawMention {
        home,
        spans: vec![(start, end)],
        text: Some(text.to_owned()),
        kind: "Chemical".to_owned(),
        ..RawMention::default()
    }
}

fn document(passages: &[(&str, Option<u64>)], mentions: Vec<RawMention>) -> RawDocument {
    let passage = |&(text, offset): &(&str, Option<u64>)| RawPassage {
        section: None,
        blocks: vec![RawBlock {
            text: text.to_owned(),
            offset,
        }],
        blocks_are_sentences: false,
    };
    RawDocument {
        id: "d".to_owned(),
        place: Place::default(),
        passages: passages.iter().map(passage).collect(),
        mentions,
        ..RawDocument::default()
    }
}

fn resolved(raw: RawDocument) -> (Resolved, Vec<Reason>) {
    let mut collected = Collected(Vec::new());
    let resolved = resolve(raw, CompositeUse::Whole, &mut Summary::default(), &mut collected).unwrap();
    (
        resolved,
        collected.0.into_iter().map(|problem| problem.reason).collect(),
    )
}

#[test]
fn the_unit_is_the_one_in_which_all_mentions_hold() {
    let text = "😀é aspirin";
    for (unit, start) in [(Unit::CodePoint, 3), (Unit::Utf16, 4), (Unit::Byte, 7)] {
        let (found, problems) = resolved(document(
            &[(text, Some(50))],
            vec![mention(Some((0, 0)), 50 + start, 57 + start, "aspirin")],
        ));
        assert_eq!(problems, [], "{unit:?}");
        assert_eq!(
            found.reading,
            Some(Reading {
                unit,
                passage_relative: false,
                short_line_ends: false
            })
        );
        assert_eq!(found.document.mentions[0].hull(), 7..14);
    }
}

#[test]
fn separators_count_one_in_every_unit() {
    for (unit, shift) in [(Unit::CodePoint, 2), (Unit::Utf16, 3), (Unit::Byte, 5)] {
        let (found, problems) = resolved(document(
            &[("😀", None), ("é aspirin", None)],
            vec![mention(
                None,
                shift + if unit == Unit::Byte { 3 } else { 2 },
                shift + if unit == Unit::Byte { 10 } else { 9 },
                "aspirin",
            )],
        ));
        assert_eq!(problems, [], "{unit:?}");
        assert_eq!(found.reading.unwrap().unit, unit);
        assert_eq!(found.document.passages[1].start, 2);
    }
}

#[test]
fn sentences_far_apart_are_where_they_say_and_the_text_is_not_filled_with_spaces() {
    let mut raw = document(
        &[("Aspirin came.", Some(5))],
        vec![mention(None, 105, 109, "Rash"), mention(None, 217, 222, "fever")],
    );
    let sentence = |text: &str, offset| RawBlock {
        text: text.to_owned(),
        offset: Some(offset),
    };
    raw.passages[0].blocks_are_sentences = true;
    raw.passages[0].blocks.extend([
        sentence("Rash too.", 105),
        sentence("No fever.", 214),
        sentence("End.", 225),
    ]);
    let (found, problems) = resolved(raw);
    assert_eq!(problems, []);
    let passage = &found.document.passages[0];
    assert_eq!(passage.text, "Aspirin came. Rash too. No fever.  End.");
    let in_document = |word: &str| {
        let byte = passage.text.find(word).unwrap();
        passage.in_document(byte, byte as u64)
    };
    assert_eq!(["Aspirin", "Rash", "fever", "End"].map(in_document), [5, 105, 217, 225]);
}

#[test]
fn offsets_from_the_passage_are_recognised() {
    let mentions = vec![mention(Some((0, 0)), 0, 1, "a"), mention(Some((1, 0)), 2, 3, "c")];
    let (found, problems) = resolved(document(&[("a b", Some(0)), ("b c", Some(4))], mentions));
    assert_eq!(problems, []);
    assert!(found.reading.unwrap().passage_relative);
    assert_eq!(found.document.mentions[1].passage, 1);
}

#[test]
fn the_unit_of_most_mentions_is_taken_and_the_others_reported() {
    let home = Some((0, 0));
    let mentions = vec![
        mention(home, 2, 3, "a"),
        mention(home, 4, 5, "b"),
        mention(home, 3, 4, "a"),
        mention(home, 4, 5, "z"),
    ];
    let (found, problems) = resolved(document(&[("😀 a b", Some(0))], mentions));
    assert_eq!(found.reading.unwrap().unit, Unit::CodePoint);
    assert_eq!(problems, [Reason::TextMismatch, Reason::TextMismatch]);
    assert_eq!(found.document.mentions.len(), 2);
}

#[test]
fn hostile_offsets_are_outside_of_the_text() {
    let home = Some((0, 0));
    let mentions = vec![
        mention(home, u64::MAX - 1, u64::MAX, "a"),
        mention(home, 0, u64::MAX, "a"),
        mention(None, u64::MAX - 1, u64::MAX, "a"),
        mention(Some((7, 9)), 0, 1, "a"),
        mention(home, 1, 0, "a"),
        mention(home, 0, 1, ""),
    ];
    let (_, problems) = resolved(document(&[("a", Some(u64::MAX - 1)), ("b", Some(u64::MAX))], mentions));
    let outside = Reason::OutsideText;
    // The first and third are where they say: the passage itself claims to begin there.
    assert_eq!(problems, [outside, outside, Reason::EmptyMention, Reason::MissingText]);
}

#[test]
fn a_mention_of_whitespace_alone_is_empty() {
    let home = Some((0, 0));
    let mut in_pieces = mention(home, 1, 2, "  ");
    in_pieces.spans.push((3, 4));
    let mentions = vec![mention(home, 1, 2, " "), in_pieces, mention(home, 3, 5, " c")];
    let (found, problems) = resolved(document(&[("a b c", Some(0))], mentions));
    assert_eq!(problems, [Reason::EmptyMention; 2]);
    assert_eq!(found.document.mentions.len(), 1);
}

#[test]
fn fragments_that_touch_are_one() {
    let mut broken = mention(Some((0, 0)), 5, 8, "liver damage");
    broken.spans.extend([(0, 5), (10, 12), (8, 10)]);
    let (found, problems) = resolved(document(&[("liver damage", Some(0))], vec![broken]));
    assert_eq!(problems, []);
    let whole = 0..12;
    assert_eq!(found.document.mentions[0].fragments, [whole]);
}

#[test]
fn passages_that_claim_to_overlap_are_laid_out_anew() {
    let (found, _) = resolved(document(&[("abc", Some(0)), ("def", Some(0))], vec![]));
    assert_eq!(
        found
            .document
            .passages
            .iter()
            .map(|passage| passage.start)
            .collect::<Vec<_>>(),
        [0, 4]
    );
    let (found, _) = resolved(document(&[("abc", Some(10)), ("def", Some(20))], vec![]));
    assert_eq!(
        found
            .document
            .passages
            .iter()
            .map(|passage| passage.start)
            .collect::<Vec<_>>(),
        [10, 20]
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_true_offset_in_any_unit_resolves_to_its_bytes(
        texts in prop::collection::vec("[a-c é😀β\u{301}]{1,12}", 1..4),
        base in 0u64..1000,
        picks in prop::collection::vec(any::<(prop::sample::Index, prop::sample::Index, prop::sample::Index)>(), 1..6),
        unit in prop_oneof![Just(Unit::CodePoint), Just(Unit::Utf16), Just(Unit::Byte)],
    ) {
        let length = |text: &str| match unit {
            Unit::CodePoint => text.chars().count() as u64,
            Unit::Utf16 => text.encode_utf16().count() as u64,
            Unit::Byte => text.len() as u64,
        };
        let mut next = base;
        let mut passages = Vec::new();
        for text in &texts {
            passages.push((text.as_str(), Some(next)));
            next += length(text) + 1;
        }
        let mut expected = Vec::new();
        let mut mentions = Vec::new();
        for (passage, a, b) in &picks {
            let index = passage.index(texts.len());
            let text = &texts[index];
            let bounds: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
            let (a, b) = (bounds[a.index(bounds.len())], bounds[b.index(bounds.len())]);
            let (a, b) = (a.min(b), a.max(b));
            if text[a..b].trim().is_empty() {
                continue;
            }
            let start = passages[index].1.unwrap() + length(&text[..a]);
            mentions.push(mention(Some((index, 0)), start, start + length(&text[a..b]), &text[a..b]));
            expected.push(text[a..b].to_owned());
        }
        let (found, problems) = resolved(document(&passages, mentions));
        prop_assert_eq!(problems, []);
        let words = found.document.mentions.iter().map(|mention| slice(&found.document.passages[mention.passage].text, &mention.fragments));
        prop_assert_eq!(words.collect::<Vec<_>>(), expected);
    }
}
