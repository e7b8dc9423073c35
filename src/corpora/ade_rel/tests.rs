use crate::corpora::testing::{Extracted, extract};
use crate::corpora::{CorpusError, Format, Options, testing};

fn ade(text: impl Into<Vec<u8>>) -> Extracted {
    extract(Format::AdeRel, text)
}

#[test]
fn mentions_are_placed_by_their_words_and_not_by_their_offsets() {
    let found = ade("9|Aspirin caused rash and fever.|rash|115|119|Aspirin|100|107\n\
                     9|Aspirin caused rash and fever.|fever|124|129|Aspirin|100|107\n");
    assert_eq!(found.problems, [""; 0]);
    assert_eq!(found.ids(), ["9:100-107:115-119", "9:100-107:124-129"]);
    assert_eq!(found.records[0]["drug_span"], serde_json::json!([0, 7]));
    assert_eq!(found.labels(), [Some(1), Some(1)]);
}

#[test]
fn combinations_that_the_corpus_does_not_state_are_labelled_0() {
    let sentence = "Aspirin caused rash, ibuprofen fever.";
    let found = ade(format!(
        "9|{sentence}|rash|15|19|Aspirin|0|7\n9|{sentence}|fever|31|36|ibuprofen|21|30\n"
    ));
    assert_eq!(
        found.ids(),
        ["9:0-7:15-19", "9:0-7:31-36", "9:21-30:15-19", "9:21-30:31-36"]
    );
    assert_eq!(found.labels(), [Some(1), Some(0), Some(0), Some(1)]);
}

#[test]
fn a_word_that_is_there_twice_is_placed_by_the_distance() {
    let found = ade("9|Rash after aspirin, no rash without aspirin.|rash|123|127|aspirin|136|143\n");
    assert_eq!(found.records[0]["drug_span"], serde_json::json!([36, 43]));
}

#[test]
fn two_places_that_fit_are_told_apart_by_the_other_lines() {
    let sentence = "X rash, X rash.";
    let first = format!("9|{sentence}|rash|102|106|X|100|101\n");
    let second = format!("9|{sentence}|rash|110|114|X|108|109\n");
    let alone = ade(first.as_str());
    assert_eq!(alone.reasons, ["ambiguous"]);
    assert_eq!((alone.summary.relations, alone.summary.relations_unresolved), (1, 1));
    let both = ade(format!("{first}9|Another.|A|1|2|n|2|3\n{second}"));
    let placed = [
        "9:2-3:1-2",
        "9:100-101:102-106",
        "9:100-101:110-114",
        "9:108-109:102-106",
        "9:108-109:110-114",
    ];
    assert_eq!(both.ids(), placed);
    // The other two have the names of the ones that are stated.
    assert_eq!((both.labels(), both.summary.labelled_by_name), (vec![Some(1); 5], 2));
}

#[test]
fn what_fits_nowhere_is_reported() {
    let found = ade("9|Aspirin caused rash.|rash|15|19|Aspirin|1|8\n\
                     9|Aspirin caused rash.|fever|15|20|Aspirin|0|7\n\
                     9|Aspirin caused rash.|rash|3|7|Aspirin|0|7\n\
                     9|Aspirin|rash|x|7|Aspirin|0|7\n9|a|b\n9|A||0|0|A|0|1\n\
                     \x20|Aspirin caused rash.|rash|15|19|Aspirin|0|7\n\
                     9|A bar | in Aspirin rash.|rash|19|23|Aspirin|11|18\n");
    assert_eq!(
        found.reasons,
        [
            "malformed_line",
            "malformed_line",
            "malformed_line",
            "malformed_line",
            "outside_text",
            "text_mismatch",
            "outside_text"
        ]
    );
    assert_eq!(found.ids(), ["9:11-18:19-23"]);
    assert!(
        found.problems[4].starts_with("test:1: document \"9\""),
        "{}",
        found.problems[4]
    );
}

#[test]
fn where_a_line_is_not_resolved_no_pair_of_its_pmid_is_a_negative() {
    let sentence = "Aspirin gave rash and hives, ibuprofen gave more.";
    let good = format!("1|{sentence}|rash|113|117|Aspirin|100|107\n1|{sentence}|hives|122|127|ibuprofen|129|138\n");
    let labels = |line: &str| ade(format!("{good}{line}2|X rash.|rash|2|6|X|0|1\n")).labels();
    let one = Some(1);
    assert_eq!(labels(""), [one, Some(0), Some(0), one, one]);
    for lost in [
        format!("1|{sentence}|hives|122|127|Aspirin|107|114\n"),
        format!("1|{sentence}|hives|122|127|Aspirin|x|107\n"),
        "1|torn\n".to_owned(),
    ] {
        assert_eq!(labels(&lost), [one, None, None, one, one], "{lost}");
    }
}

#[test]
fn a_sentence_of_the_corpus_is_one_sentence() {
    let found = ade("9|METHODS: One. Aspirin. Then came rash.|rash|33|37|Aspirin|14|21\n");
    assert_eq!(found.records[0]["text"], "METHODS: One. Aspirin. Then came rash.");
}

#[test]
fn reading_errors_end_the_run_with_the_name_of_the_file() {
    struct Broken;
    impl std::io::Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("torn"))
        }
    }
    let input = crate::files::Input::Reader("broken".into(), Box::new(Broken));
    let sources = crate::corpora::Sources::Streams(Format::AdeRel, vec![input]);
    let error = testing::extract_from(sources, &Options::default()).err().unwrap();
    assert!(
        matches!(&error, CorpusError::Read { name, .. } if name == "broken"),
        "{error}"
    );
}
