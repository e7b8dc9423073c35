use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::HashSet;

use super::*;
use crate::corpora::Unlabelled;
use crate::corpora::document::{Endpoint, Mention, Passage, Relation};
use crate::corpora::report::Place;

fn mention(passage: usize, fragments: &[Range<usize>], kind: &str, concepts: &[&str]) -> Mention {
    Mention {
        passage,
        fragments: fragments.to_vec(),
        kind: kind.to_owned(),
        concepts: concepts.iter().map(|concept| (*concept).to_owned()).collect(),
    }
}

fn document(texts: &[&str], mentions: Vec<Mention>, relations: Vec<Relation>) -> Document {
    let mut start = 0;
    let passages = texts.iter().map(|text| {
        let passage = Passage {
            section: None,
            text: (*text).to_owned(),
            start,
            sentences: None,
            gaps: Vec::new(),
        };
        start += text.chars().count() as u64 + 1;
        passage
    });
    Document {
        id: "d".to_owned(),
        place: Place::default(),
        passages: passages.collect(),
        mentions,
        aliases: BTreeMap::new(),
        unresolved_relations: Default::default(),
        has_relations: !relations.is_empty(),
        relations,
    }
}

/// The records, how many pairs were beyond the limit, and the counts.
fn pairs(document: &Document, options: &Options) -> (Vec<Value>, u64, Summary) {
    let (mut output, mut summary) = (Vec::new(), Summary::default());
    let dropped = write_pairs(document, 1, options, &mut summary, &mut output).unwrap();
    let text = String::from_utf8(output).unwrap();
    (
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(),
        dropped,
        summary,
    )
}

fn texts(records: &[Value]) -> Vec<&str> {
    records.iter().map(|record| record["text"].as_str().unwrap()).collect()
}

const TEXT: &str = "One. Two. Drug did. Rash came. Six. Seven.";

fn wide() -> Document {
    document(
        &["Zero.", TEXT, "End."],
        vec![mention(1, &[10..14], "Drug", &[]), mention(1, &[20..24], "ADR", &[])],
        vec![],
    )
}

#[test]
fn windows_are_sentences_around_the_mentions() {
    let text = |scope, window| {
        let options = Options {
            scope,
            window,
            ..Options::default()
        };
        pairs(&wide(), &options)
            .0
            .iter()
            .map(|record| record["text"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(text(Scope::Sentence, None), [""; 0]);
    assert_eq!(text(Scope::Sentence, Some(5)), [""; 0]);
    assert_eq!(text(Scope::Passage, None), [TEXT]);
    assert_eq!(text(Scope::Passage, Some(0)), ["Drug did. Rash came."]);
    assert_eq!(text(Scope::Passage, Some(1)), ["Two. Drug did. Rash came. Six."]);
    assert_eq!(text(Scope::Passage, Some(usize::MAX)), [TEXT]);
    assert_eq!(text(Scope::Document, None), [format!("Zero.\n{TEXT}\nEnd.")]);
    assert_eq!(text(Scope::Document, Some(0)), ["Drug did. Rash came."]);
}

#[test]
fn a_pair_over_passages_spans_what_is_between() {
    let mentions = vec![mention(2, &[2..6], "Drug", &[]), mention(0, &[4..8], "ADR", &[])];
    let document = document(&["é. Äsh 1.", "Two.", "A Drug. B."], mentions, vec![]);
    let options = Options {
        scope: Scope::Document,
        window: Some(0),
        ..Options::default()
    };
    let (records, _, _) = pairs(&document, &options);
    assert_eq!(texts(&records), ["Äsh 1.\nTwo.\nA Drug."]);
    assert_eq!(
        (&records[0]["drug_span"], &records[0]["adr_span"]),
        (&json!([14, 18]), &json!([0, 3]))
    );
    assert_eq!(records[0]["id"], "d:17-21:3-6");
}

#[test]
fn a_document_begins_and_ends_with_its_first_and_last_passage_that_has_text() {
    let mentions = vec![
        mention(1, &[0..1], "Chemical", &["D1"]),
        mention(1, &[2..3], "Disease", &["D2"]),
    ];
    let document = document(&["", "a b", " \n", ""], mentions, vec![]);
    let options = Options {
        scope: Scope::Document,
        ..Options::default()
    };
    assert_eq!(texts(&pairs(&document, &options).0), ["a b"]);
    // A mention may be whitespace itself.
    let mentions = vec![
        mention(1, &[0..1], "Chemical", &["D1"]),
        mention(2, &[2..3], "Disease", &["D2"]),
    ];
    let document = self::document(&["", " ", "a b", ""], mentions, vec![]);
    assert_eq!(texts(&pairs(&document, &options).0), [" \na b"]);
}

#[test]
fn equal_characters_are_one_mention_with_all_identifiers() {
    let mentions = vec![
        mention(0, &[0..4], "Drug", &["D2"]),
        mention(0, &[0..4], "Chemical", &["D1", "MESH:D2"]),
        mention(0, &[5..9], "ADR", &["D3"]),
    ];
    let relation = Relation {
        kind: "CID".to_owned(),
        ends: [Endpoint::Concepts(vec!["D3".into()]), Endpoint::Mention(1)],
        qualified: false,
    };
    let (records, _, _) = pairs(&document(&["Drug Rash"], mentions, vec![relation]), &Options::default());
    assert_eq!(records.len(), 1);
    assert_eq!(records[0]["drug_concepts"], json!(["D2", "D1"]));
    assert_eq!(records[0]["label"], 1);
}

#[test]
fn mention_relations_relate_these_mentions_and_no_others() {
    let mentions = vec![
        mention(0, &[0..1], "Drug", &["D1"]),
        mention(0, &[2..3], "Drug", &["D2"]),
        mention(0, &[4..5], "ADR", &["D3"]),
    ];
    let relation = Relation {
        kind: "ade_drug".to_owned(),
        ends: [Endpoint::Mention(2), Endpoint::Mention(1)],
        qualified: false,
    };
    let (records, _, _) = pairs(&document(&["X Y R"], mentions, vec![relation]), &Options::default());
    assert_eq!(
        records
            .iter()
            .map(|record| record["label"].as_u64().unwrap())
            .collect::<Vec<_>>(),
        [0, 1]
    );
}

/// The labels of a document's pairs, 2 where there is none.
fn labels(document: &Document, options: &Options) -> (Vec<u64>, Summary) {
    let (records, _, summary) = pairs(document, options);
    let labels = records.iter().map(|record| record.get("label"));
    (
        labels
            .map(|label| label.map_or(2, |label| label.as_u64().unwrap()))
            .collect(),
        summary,
    )
}

#[test]
fn a_pair_called_as_a_related_one_is_related_in_its_text_and_unlabelled_elsewhere() {
    let text = "Quinine rash: quinine  Rash. Quinine RASH, salt rash.";
    let at = |from: usize, to: usize, kind: &str| mention(0, &[from..to], kind, &[]);
    let mentions = vec![
        at(0, 7, "Drug"),
        at(8, 12, "ADR"),
        at(14, 21, "Drug"),
        at(23, 27, "ADR"),
        at(29, 36, "Drug"),
        at(37, 41, "ADR"),
        at(43, 47, "Drug"),
        at(48, 52, "ADR"),
    ];
    let relation = Relation {
        kind: "ADE".to_owned(),
        ends: [Endpoint::Mention(3), Endpoint::Mention(0)],
        qualified: false,
    };
    let document = document(&[text], mentions, vec![relation]);
    let (found, summary) = labels(&document, &Options::default());
    assert_eq!(found, [1, 1, 1, 1, 2, 2, 0, 0]);
    assert_eq!(summary.labelled_by_name, 3);
    assert_eq!(
        summary.labels_left_out,
        BTreeMap::from([(Unlabelled::RelatedElsewhere, 2)])
    );
    // With its neighbour the second sentence's text holds the related pair.
    let options = Options {
        window: Some(1),
        ..Options::default()
    };
    assert_eq!(labels(&document, &options).0, [1, 1, 1, 1, 1, 1, 0, 0]);
}

#[test]
fn a_pair_called_as_one_of_a_negated_relation_is_not_labelled_unless_its_text_has_a_related_one() {
    let mentions = vec![
        mention(0, &[0..1], "Drug", &[]),
        mention(0, &[2..3], "ADR", &[]),
        mention(0, &[5..6], "Drug", &[]),
        mention(0, &[7..8], "ADR", &[]),
    ];
    let relation = |drug, adr, qualified| Relation {
        kind: "ADE".to_owned(),
        ends: [Endpoint::Mention(drug), Endpoint::Mention(adr)],
        qualified,
    };
    let document = |relations| document(&["X R, X R."], mentions.clone(), relations);
    let options = Options::default();
    let (negated, summary) = labels(&document(vec![relation(0, 1, true)]), &options);
    assert_eq!(negated, [2; 4]);
    assert_eq!(
        summary.labels_left_out,
        BTreeMap::from([(Unlabelled::QualifiedRelation, 4)])
    );
    let both = vec![relation(0, 1, true), relation(2, 3, false)];
    assert_eq!(labels(&document(both), &options).0, [2, 1, 1, 1]);
}

#[test]
fn relations_between_a_drug_and_a_reaction_that_no_pair_is_of_are_counted() {
    let mentions = vec![
        mention(0, &[0..1], "Drug", &["D1"]),
        mention(0, &[2..3], "ADR", &["D2"]),
        mention(0, &[5..6], "ADR", &["D3"]),
        mention(0, &[7..8], "Drug", &[]),
    ];
    let relation = |ends| Relation {
        kind: "CID".to_owned(),
        ends,
        qualified: false,
    };
    let concept = |concept: &str| Endpoint::Concepts(vec![concept.to_owned()]);
    let relations = vec![
        relation([concept("D2"), concept("D1")]),
        relation([concept("D3"), concept("D1")]),
        relation([Endpoint::Mention(3), Endpoint::Mention(1)]),
        // Of two drugs, of two reactions.
        relation([Endpoint::Mention(3), concept("D1")]),
        relation([concept("D3"), Endpoint::Mention(1)]),
    ];
    let document = document(&["x r. S y."], mentions, relations);
    for (scope, labels_option, expected) in [
        (Scope::Sentence, Labels::Auto, 2),
        (Scope::Sentence, Labels::None, 2),
        (Scope::Passage, Labels::Auto, 0),
    ] {
        let options = Options {
            scope,
            labels: labels_option,
            ..Options::default()
        };
        assert_eq!(
            pairs(&document, &options).2.relations_without_pair,
            expected,
            "{scope:?}"
        );
    }
}

#[test]
fn the_same_identifiers_are_the_same_name_and_other_ones_of_one_drug_are_not() {
    let mentions = vec![
        mention(0, &[0..1], "Drug", &["D1", "MESH:D4"]),
        mention(0, &[2..3], "Drug", &["D4", "D1"]),
        mention(0, &[4..5], "ADR", &["D2"]),
        mention(0, &[6..7], "ADR", &["D3"]),
    ];
    let relation = Relation {
        kind: "ADE".to_owned(),
        ends: [Endpoint::Mention(2), Endpoint::Mention(1)],
        qualified: false,
    };
    let document = document(&["X Y R S"], mentions, vec![relation]);
    assert_eq!(labels(&document, &Options::default()).0, [1, 0, 1, 0]);
}

#[test]
fn overlapping_mentions_are_marked_or_left_out() {
    let mentions = vec![mention(0, &[0..7], "Drug", &[]), mention(0, &[0..16], "ADR", &[])];
    let document = document(&["lithium toxicity"], mentions, vec![]);
    let (records, _, _) = pairs(&document, &Options::default());
    assert_eq!(records[0]["overlap"], true);
    let (records, _, summary) = pairs(
        &document,
        &Options {
            overlap: Overlap::Drop,
            ..Options::default()
        },
    );
    assert_eq!((records.len(), summary.overlaps_dropped), (0, 1));
}

#[test]
fn mentions_that_touch_do_not_overlap() {
    for (drug, adr) in [(0..7, 7..15), (7..15, 0..7)] {
        let mentions = vec![mention(0, &[drug], "Drug", &[]), mention(0, &[adr], "ADR", &[])];
        let options = Options {
            overlap: Overlap::Drop,
            ..Options::default()
        };
        let (records, _, summary) = pairs(&document(&["lithiumtoxicity"], mentions, vec![]), &options);
        assert_eq!((records.len(), summary.overlaps_dropped), (1, 0));
        assert_eq!(records[0].get("overlap"), None);
    }
}

#[test]
fn a_drug_between_the_pieces_of_a_reaction_does_not_overlap_it() {
    let mentions = vec![mention(0, &[6..7], "Drug", &[]), mention(0, &[0..5, 8..12], "ADR", &[])];
    let (records, _, _) = pairs(&document(&["liver X pain"], mentions, vec![]), &Options::default());
    assert_eq!(records[0].get("overlap"), None);
}

#[test]
fn pairs_beyond_the_limit_are_counted() {
    let text = "ab".repeat(20);
    let mentions = (0..20).flat_map(|i| {
        [
            mention(0, &[2 * i..2 * i + 1], "Drug", &[]),
            mention(0, &[2 * i + 1..2 * i + 2], "ADR", &[]),
        ]
    });
    let document = document(&[&text], mentions.collect(), vec![]);
    let (records, dropped, summary) = pairs(
        &document,
        &Options {
            max_pairs_per_document: 45,
            ..Options::default()
        },
    );
    assert_eq!((records.len(), dropped, summary.pairs_dropped), (45, 355, 355));
    let (all, dropped, _) = pairs(&document, &Options::default());
    assert_eq!((all.len(), dropped, &all[..45]), (400, 0, &records[..]));
}

#[test]
fn a_mention_that_begins_with_a_space_is_not_cut() {
    let mentions = vec![mention(0, &[0..5], "Drug", &[]), mention(0, &[6..11], "ADR", &[])];
    let (records, _, _) = pairs(&document(&[" Drug Rash  "], mentions, vec![]), &Options::default());
    assert_eq!(
        (records[0]["text"].as_str(), records[0]["adr"].as_str()),
        (Some(" Drug Rash "), Some("Rash "))
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn spans_slice_to_the_entities_and_ids_are_unique(
        passages in prop::collection::vec("([a-zA-Z é😀]{1,8}[.!?]? ?\n?){1,4}", 1..4),
        picks in prop::collection::vec(
            (any::<prop::sample::Index>(), prop::collection::vec(any::<prop::sample::Index>(), 2..5), any::<bool>()),
            0..8,
        ),
        scope in prop_oneof![Just(Scope::Sentence), Just(Scope::Passage), Just(Scope::Document)],
        window in prop_oneof![Just(None), (0usize..3).prop_map(Some)],
    ) {
        let mut mentions = Vec::new();
        for (passage, cuts, is_drug) in &picks {
            let passage = passage.index(passages.len());
            let text = &passages[passage];
            let bounds: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| bounds[cut.index(bounds.len())]).collect();
            cuts.sort_unstable();
            cuts.dedup();
            let fragments: Vec<_> = cuts.chunks_exact(2).map(|cut| cut[0]..cut[1]).collect();
            if !fragments.is_empty() {
                mentions.push(mention(passage, &fragments, if *is_drug { "Drug" } else { "ADR" }, &[]));
            }
        }
        let texts: Vec<&str> = passages.iter().map(String::as_str).collect();
        let mentions_count = mentions.len();
        let document = document(&texts, mentions, vec![]);
        let options = Options { scope, window, ..Options::default() };
        let (records, _, _) = pairs(&document, &options);
        prop_assert_eq!(&records, &pairs(&document, &options).0);
        let mut ids = HashSet::new();
        for record in &records {
            prop_assert!(ids.insert(record["id"].as_str().unwrap().to_owned()));
            let text: Vec<char> = record["text"].as_str().unwrap().chars().collect();
            for side in ["drug", "adr"] {
                let [start, end] = [0, 1].map(|i| record[format!("{side}_span")][i].as_u64().unwrap() as usize);
                let slice: String = text[start..end].iter().collect();
                prop_assert_eq!(record[side].as_str().unwrap(), slice);
            }
        }
        if scope == Scope::Document {
            let distinct = |kind: &str| {
                let mentions = document.mentions.iter().filter(|mention| mention.kind == kind);
                mentions.map(|mention| (mention.passage, format!("{:?}", mention.fragments))).collect::<HashSet<_>>().len()
            };
            prop_assert_eq!(records.len(), distinct("Drug") * distinct("ADR"));
            prop_assert!(records.len() <= mentions_count * mentions_count);
        }
    }

    #[test]
    fn mentions_overlap_where_two_pieces_have_a_character_in_common(
        cuts in [0, 1].map(|_| prop::collection::btree_set(0usize..16, 2..9)),
    ) {
        let [drug, adr] = cuts.map(|cuts| {
            let cuts: Vec<usize> = cuts.into_iter().collect();
            cuts.chunks_exact(2).map(|cut| cut[0]..cut[1]).collect::<Vec<_>>()
        });
        let mentions = vec![mention(0, &drug, "Drug", &[]), mention(0, &adr, "ADR", &[])];
        let (records, _, _) = pairs(&document(&["sixteen letters."], mentions, vec![]), &Options::default());
        let shared = (0..16).any(|at| [&drug, &adr].iter().all(|side| side.iter().any(|piece| piece.contains(&at))));
        prop_assert_eq!(&records[0]["overlap"], &if shared { json!(true) } else { Value::Null });
    }

    #[test]
    fn a_pair_is_related_where_a_relation_names_the_one_at_one_end_and_the_other_at_the_other(
        concepts in prop::collection::vec(prop::collection::btree_set(0usize..4, 0..4), 2..12),
        ends in prop::collection::vec(
            (prop::collection::btree_set(0usize..4, 1..3), prop::option::of(any::<prop::sample::Index>()), 0usize..4, any::<bool>()),
            1..12,
        ),
    ) {
        let names = ["A", "B", "C", "D"];
        let text: String = (0..concepts.len()).map(|at| char::from(b'a' + at as u8)).collect();
        let mentions: Vec<Mention> = concepts.iter().enumerate().map(|(at, concepts)| {
            let concepts: Vec<&str> = concepts.iter().map(|&concept| names[concept]).collect();
            // Two annotations of one place are one mention.
            let at = at / 3 * 2;
            mention(0, std::slice::from_ref(&(at..at + 1)), if at % 4 == 0 { "Drug" } else { "ADR" }, &concepts)
        }).collect();
        let relations: Vec<Relation> = ends.iter().map(|(several, one, concept, turned)| {
            let several = Endpoint::Concepts(several.iter().map(|&concept| names[concept].to_owned()).collect());
            let one = match one {
                Some(index) => Endpoint::Mention(index.index(mentions.len())),
                None => Endpoint::Concepts(vec![names[*concept].to_owned()]),
            };
            let ends = if *turned { [several, one] } else { [one, several] };
            Relation { kind: "CID".to_owned(), ends, qualified: false }
        }).collect();
        let is_named = |end: &Endpoint, span: &Value| mentions.iter().enumerate().any(|(index, mention)| {
            let here = json!([mention.fragments[0].start, mention.fragments[0].end]) == *span;
            here && match end {
                Endpoint::Mention(named) => *named == index,
                Endpoint::Concepts(named) => named.iter().any(|concept| mention.concepts.contains(concept)),
            }
        });
        let relates = |relation: &Relation, record: &Value| {
            let sides = [&record["drug_span"], &record["adr_span"]];
            let [one, other] = &relation.ends;
            (is_named(one, sides[0]) && is_named(other, sides[1])) || (is_named(one, sides[1]) && is_named(other, sides[0]))
        };
        let options = Options { scope: Scope::Document, ..Options::default() };
        let document = document(&[&text], mentions.clone(), relations.clone());
        let (records, _, summary) = pairs(&document, &options);
        for record in &records {
            let expected = relations.iter().any(|relation| relates(relation, record));
            prop_assert_eq!(&record["label"], &json!(u8::from(expected)));
        }
        // All are near enough: none is missed.
        prop_assert_eq!(summary.relations_without_pair, 0);
    }
}
