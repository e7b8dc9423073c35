use std::path::PathBuf;

use super::*;
use crate::corpora::testing::{Extracted, extract_from};
use crate::corpora::{Options, Scope, Sources};

fn brat(files: &[(&str, &str)]) -> (Extracted, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let found = find(&[folder.path().to_owned()]).unwrap();
    (extract_from(Sources::Brat(found), &Options::default()).unwrap(), folder)
}

#[test]
fn discontinuous_mentions_reach_from_their_first_to_their_last_piece() {
    let (found, _folder) = brat(&[
        ("a/x.txt", "X caused pain in left and right arm."),
        (
            "a/x.ann",
            "T1\tDrug 0 1\tX\nT2\tADE 9 21;32 35\tpain in left arm\nR1\tADE-Drug Arg1:T2 Arg2:T1\n",
        ),
    ]);
    assert_eq!(found.problems, [""; 0]);
    assert_eq!(found.ids(), ["a/x:0-1:9-21,32-35"]);
    assert_eq!(found.records[0]["adr"], "pain in left and right arm");
    assert_eq!(
        found.records[0]["adr_fragments"],
        serde_json::json!([[9, 21], [32, 35]])
    );
    assert_eq!(found.labels(), [Some(1)]);
}

#[test]
fn pieces_that_touch_are_one() {
    let (found, _folder) = brat(&[
        ("x.txt", "X caused pain in arm."),
        (
            "x.ann",
            "T1\tDrug 0 1\tX\nT2\tADE 13 20;9 11;11 13\tpain in arm\nR1\tADE-Drug Arg1:T2 Arg2:T1\n",
        ),
    ]);
    assert_eq!(found.problems, [""; 0]);
    assert_eq!(found.ids(), ["x:0-1:9-20"]);
    assert_eq!(found.records[0].get("adr_fragments"), None);
}

#[test]
fn a_line_end_within_a_mention_is_a_space_in_its_words() {
    let (found, _folder) = brat(&[
        ("x.txt", "X caused\r\nliver\nfailure."),
        (
            "x.ann",
            "T1\tDrug 0 1\tX\nT2\tADE 10 15;16 23\tliver failure\nT3\tADE 10 23\tliver failure\n",
        ),
    ]);
    assert_eq!(found.problems, [""; 0]);
    assert_eq!(
        found.records.iter().map(|record| &record["adr"]).collect::<Vec<_>>(),
        ["liver\nfailure"; 2]
    );
}

#[test]
fn a_line_end_of_two_characters_may_count_as_one() {
    let text = "X was given.\r\nThen räsh\r\nand liver\r\nfailure came.";
    // As `text.replace("\r\n", "\n")` counts.
    let annotations = "T1\tDrug 0 1\tX\nT2\tADE 18 22\träsh\nT3\tADE 27 40\tliver failure\n";
    for mark in ["", "\u{feff}"] {
        let text = format!("{mark}{text}");
        let (found, folder) = brat(&[("x.txt", &text), ("x.ann", annotations)]);
        assert_eq!(found.problems, [""; 0]);
        let options = Options {
            scope: Scope::Document,
            ..Options::default()
        };
        let found = extract_from(Sources::Brat(find(&[folder.path().to_owned()]).unwrap()), &options).unwrap();
        // Places in the text as it is written out.
        assert_eq!(found.ids(), ["x:0-1:19-23", "x:0-1:29-43"]);
        assert_eq!(found.records[1]["adr"], "liver\r\nfailure");
        assert_eq!((found.summary.short_line_ends, found.summary.resolved), (1, 3));
    }
    // The mark counts too, and tells on no first line.
    let marked = "T1\tDrug 42 46\tcame\nT2\tADE 19 23\träsh\nT3\tADE 28 41\tliver failure\n";
    let (found, _folder) = brat(&[("x.txt", &format!("\u{feff}{text}")), ("x.ann", marked)]);
    assert_eq!(found.problems, [""; 0]);
    // One document is counted in one way: what the other way would find is reported.
    let mixed = "T1\tDrug 0 1\tX\nT2\tADE 18 22\träsh\nT3\tADE 36 43\tfailure\n";
    let (found, _folder) = brat(&[("x.txt", text), ("x.ann", mixed)]);
    assert_eq!((found.reasons, found.summary.resolved), (vec!["text_mismatch"], 2));
    assert_eq!(found.summary.short_line_ends, 0, "as many in the usual way");
}

#[test]
fn arguments_of_an_event_are_related_and_its_trigger_is_no_mention() {
    let (found, _folder) = brat(&[
        ("x.txt", "X caused rash."),
        (
            "x.ann",
            "T1\tAdverse_event 2 8\tcaused\nT2\tTreatment_Drug 0 1\tX\nT3\tEffect 9 13\trash\n\
                   E1\tAdverse_event:T1 Treatment:T2 Effect:T3\nN1\tReference T2 RxNorm:1\tX\n",
        ),
    ]);
    assert_eq!(found.labels(), [Some(1)]);
    assert_eq!(found.records[0]["drug_concepts"], serde_json::json!(["RxNorm:1"]));
    assert_eq!(found.summary.mentions, 2);
}

#[test]
fn malformed_lines_and_missing_files_are_reported_and_the_rest_goes_on() {
    let (found, _folder) = brat(&[
        ("alone.ann", ""),
        ("x.txt", "X caused rash."),
        (
            "x.ann",
            "T1\tDrug 0 1\tX\nT2\tADE 9 13\trash\nT3\tADE 9 ; 13\trash\nT4 no tab\nR1\tADE-Drug Arg1:T9\n\
                   T5\tADE 9 14\trash\nR2\tADE-Drug Arg1:T5 Arg2:T1\n?\n#1\tnote\n\n",
        ),
    ]);
    assert_eq!(found.ids(), ["x:0-1:9-13"]);
    assert_eq!(
        found.reasons,
        [
            "missing_file",
            "malformed_line",
            "malformed_line",
            "malformed_line",
            "malformed_line",
            "text_mismatch",
            "dangling_relation"
        ]
    );
    assert!(
        found.problems[1].contains("x.ann:3: document \"x\""),
        "{}",
        found.problems[1]
    );
    // A relation was stated, and it may have been this one.
    assert_eq!(found.labels(), [None]);
    assert_eq!(found.summary.relations_unresolved, 2);
}

#[test]
fn a_relation_to_one_of_two_mentions_of_a_key_makes_no_pair_a_negative() {
    let text = ("x.txt", "Aspirin caused rash and fever.");
    let mentions = "T1\tDrug 0 7\tAspirin\nT2\tADE 15 19\trash\nT2\tADE 24 29\tfever\n";
    let of = |relation: &str| brat(&[text, ("x.ann", &format!("{mentions}{relation}\n"))]).0;
    let found = of("R1\tADE-Drug Arg1:T2 Arg2:T1");
    assert_eq!(
        (found.reasons.as_slice(), found.labels()),
        (&["dangling_relation"][..], vec![None, None])
    );
    assert!(
        found.summary.to_string().contains("2 pairs without label: a relation"),
        "{}",
        found.summary
    );
    // One of another type says nothing of causes.
    let found = of("R1\tDosage-Drug Arg1:T2 Arg2:T1\nR2\tADE-Drug Arg1:T1 Arg2:T1");
    assert_eq!(
        (found.reasons.as_slice(), found.labels()),
        (&["dangling_relation"][..], vec![Some(0), Some(0)])
    );
}

#[test]
fn files_are_found_by_folder_and_by_either_name_once_each_in_order() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["b.txt", "b.ann", "a.v2.ann", "a.v2.txt", "notes.md"] {
        fs::write(folder.path().join(name), "").unwrap();
    }
    let ids = |paths: &[PathBuf]| {
        find(paths)
            .unwrap()
            .into_iter()
            .map(|files| files.id)
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&[folder.path().to_owned()]), ["a.v2", "b"]);
    let path = |name: &str| folder.path().join(name);
    assert_eq!(ids(&[path("b.txt"), path("a.v2.ann"), path("b.ann")]), ["b", "a.v2"]);
    assert_eq!(find(&[path("a.v2.ann")]).unwrap()[0].text, path("a.v2.txt"));
    for wrong in ["notes.md", "missing.ann"] {
        assert!(find(&[path(wrong)]).is_err(), "{wrong}");
    }
    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(find(&[empty.path().to_owned()]), Err(FindError::Empty(_))));
}

#[test]
fn an_event_without_arguments_stands_for_its_trigger() {
    let (found, _folder) = brat(&[
        ("x.txt", "Aspirin caused rash and fever."),
        (
            "x.ann",
            "T1\tDrug 0 7\tAspirin\nT2\tADE 15 19\trash\nT4\tADE 24 29\tfever\nE1\tADE:T2\nE2\tDrug:T1\n\
             R1\tADE-Drug Arg1:E1 Arg2:T1\nE3\tADE:T4 Drug:E2 Effect:T2\n",
        ),
    ]);
    assert_eq!(found.problems, [""; 0]);
    assert_eq!(found.ids(), ["x:0-7:15-19"]);
    assert_eq!(found.labels(), [Some(1)]);
    assert_eq!((found.summary.triggers_left_out, found.summary.relations), (1, 2));
}

#[test]
fn a_relation_to_an_event_that_relates_others_is_passed_over() {
    let (found, _folder) = brat(&[
        ("x.txt", "X caused rash and fever."),
        (
            "x.ann",
            "T1\tDrug 0 1\tX\nT2\tADE 9 13\trash\nT3\tADE 18 23\tfever\nT4\tCause 2 8\tcaused\n\
             E1\tADE:T4 Treatment:T1 Effect:T2\nR1\tADE-Drug Arg1:E1 Arg2:T1\nR2\tADE-Drug Arg1:T1 Arg2:E1\n",
        ),
    ]);
    assert_eq!(found.problems, [""; 0]);
    assert_eq!(found.labels(), [Some(1), Some(0)]);
    let summary = found.summary;
    assert_eq!((summary.relations, summary.other_relations), (1, 2));
    assert_eq!(summary.relations_unresolved, 0);
}

#[test]
fn an_event_that_is_named_as_a_mention_is_stands_for_its_trigger() {
    let mentions = "T1\tDrug 0 7\tAspirin\nT2\tADE 22 26\trash\nT3\tSeverity 15 21\tsevere\nT4\tADE 31 36\tfever\n\
                    T9\tCause 8 14\tcaused\n";
    for (events, labels, triggers) in [
        // By a relation, to it or to its trigger.
        (
            "E1\tADE:T2 Severity:T3\nR1\tADE-Drug Arg1:E1 Arg2:T1\nE9\tADE:T9 Treatment:T1 Effect:T4\n",
            [Some(1), Some(1)],
            1,
        ),
        (
            "E1\tADE:T2 Severity:T3\nR1\tADE-Drug Arg1:T2 Arg2:T1\nE9\tADE:T9 Treatment:T1 Effect:T4\n",
            [Some(1), Some(1)],
            1,
        ),
        // By another event.
        (
            "E1\tADE:T2 Severity:T3\nE9\tADE:T9 Treatment:T1 Effect:E1\n",
            [Some(1), Some(0)],
            1,
        ),
        // One of its kind has no arguments; a drug among them is related to it, the other is not.
        ("E1\tADE:T2 Severity:T3 Cause:T1\nE2\tADE:T4\n", [Some(1), Some(0)], 0),
    ] {
        let (found, _folder) = brat(&[
            ("x.txt", "Aspirin caused severe rash and fever."),
            ("x.ann", &format!("{mentions}{events}")),
        ]);
        assert_eq!(found.problems, [""; 0], "{events}");
        assert_eq!(found.labels(), labels, "{events}");
        assert_eq!(found.summary.triggers_left_out, triggers, "{events}");
    }
}

#[test]
fn an_identifier_of_an_event_that_stands_for_a_mention_is_the_mention_s() {
    for arguments in ["", " Severity:T3"] {
        let annotations = format!(
            "T1\tDrug 0 1\tX\nT2\tADE 16 20\trash\nT3\tSeverity 9 15\tsevere\nE1\tADE:T2{arguments}\n\
             N1\tReference E1 MedDRA:10037844\trash\n"
        );
        let (found, _folder) = brat(&[("x.txt", "X caused severe rash."), ("x.ann", &annotations)]);
        assert_eq!(found.problems, [""; 0], "{arguments}");
        let concepts = &found.records[0]["adr_concepts"];
        assert_eq!(*concepts, serde_json::json!(["MedDRA:10037844"]), "{arguments}");
    }
}

#[test]
fn what_may_relate_a_drug_and_a_reaction_in_an_unknown_way_is_reported_and_makes_no_zero() {
    let mentions = "T1\tDrug 0 7\tAspirin\nT2\tADE 22 26\trash\nT3\tSeverity 15 21\tsevere\nT4\tADE 31 36\tfever\n\
                    T9\tCause 8 14\tcaused\n";
    for (events, message) in [
        // Nothing tells whether "rash" is a reaction or says that there was one.
        (
            "E1\tADE:T2 Severity:T3 Cause:T1\n",
            "x.ann:6: document \"x\": \"ADE\" event: expected a drug and a reaction among its arguments, found one of them, and nothing \
             tells whether its trigger \"T2\" is the other",
        ),
        (
            "E1\tCause:T9 Of:T3\nR1\tADE-Drug Arg1:E1 Arg2:T1\n",
            "x.ann:7: document \"x\": \"ADE-Drug\" relation: expected mentions, found the event \"E1\", which relates others",
        ),
        (
            "E1\tCause:T9 Of:T3\nE2\tADE:T9 Treatment:T1 Effect:E1\n",
            "x.ann:7: document \"x\": \"ADE\" event: expected mentions, found the event \"E1\", which relates others",
        ),
    ] {
        let (found, _folder) = brat(&[
            ("x.txt", "Aspirin caused severe rash and fever."),
            ("x.ann", &format!("{mentions}{events}")),
        ]);
        assert_eq!(found.reasons, ["dangling_relation"], "{events}");
        assert!(found.problems[0].contains(message), "{:?}", found.problems);
        assert!(
            found.labels().iter().all(Option::is_none),
            "{events}: {:?}",
            found.labels()
        );
        assert_eq!(found.summary.relations_unresolved, 1, "{events}");
    }
}

#[test]
fn a_discontinuous_mention_s_words_stand_in_the_order_of_its_places_or_of_the_text() {
    for words in ["arm pain in left", "pain in left arm"] {
        let annotations = format!("T1\tDrug 0 1\tX\nT2\tADE 32 35;9 21\t{words}\n");
        let (found, _folder) = brat(&[
            ("x.txt", "X caused pain in left and right arm."),
            ("x.ann", &annotations),
        ]);
        assert_eq!(found.problems, [""; 0], "{words}");
        assert_eq!(found.ids(), ["x:0-1:9-21,32-35"], "{words}");
    }
}

#[test]
fn hidden_files_are_no_documents_unless_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path(".ipynb_checkpoints")).unwrap();
    for name in ["x.txt", "x.ann", "._x.txt", ".ipynb_checkpoints/x-checkpoint.txt"] {
        fs::write(path(name), "").unwrap();
    }
    let ids = |given: PathBuf| -> Vec<String> { find(&[given]).unwrap().into_iter().map(|files| files.id).collect() };
    assert_eq!(ids(folder.path().to_owned()), ["x"]);
    assert_eq!(ids(path("._x.txt")), ["._x"]);
    assert_eq!(ids(path(".ipynb_checkpoints")), ["x-checkpoint"]);
}

#[test]
fn a_text_that_ends_with_the_related_mention_holds_it() {
    // Both drugs are called alike, and the second is the related one.
    let (_, folder) = brat(&[
        ("x.txt", "X, and again X, caused rash"),
        (
            "x.ann",
            "T1\tDrug 0 1\tX\nT2\tDrug 13 14\tX\nT3\tADE 23 27\trash\nR1\tADE-Drug Arg1:T3 Arg2:T2\n",
        ),
    ]);
    for scope in [Scope::Sentence, Scope::Passage, Scope::Document] {
        let options = Options {
            scope,
            ..Options::default()
        };
        let files = find(&[folder.path().to_owned()]).unwrap();
        let found = extract_from(Sources::Brat(files), &options).unwrap();
        assert_eq!(found.problems, [""; 0]);
        assert_eq!(found.labels(), [Some(1), Some(1)], "{scope:?}");
        assert_eq!(found.summary.labelled_by_name, 1, "{scope:?}");
    }
}

#[test]
fn equivalents_of_equivalents_are_related_wherever_they_stand() {
    let text = (
        "x.txt",
        "Aspirin or ASA caused bleeding. Bayer caused haemorrhage. Rash came with Bayer.",
    );
    let mentions = "T1\tADE 22 30\tbleeding\nT2\tDrug 0 7\tAspirin\nT3\tDrug 11 14\tASA\nT4\tDrug 32 37\tBayer\n\
                    T5\tADE 45 56\thaemorrhage\nT6\tADE 58 62\tRash\nT7\tDrug 73 78\tBayer\n";
    // The sets in an order in which the first of each is not yet known, and the relation of the first or the last.
    for (drug, adr) in [("T2", "T1"), ("T4", "T5"), ("T3", "T5")] {
        let annotations =
            format!("{mentions}R1\tADE-Drug Arg1:{adr} Arg2:{drug}\n*\tEquiv T3 T4\n*\tEquiv T2 T3\n*\tEquiv T1 T5\n");
        let (found, _folder) = brat(&[text, ("x.ann", &annotations)]);
        assert_eq!(found.problems, [""; 0]);
        assert_eq!(found.labels(), [Some(1), Some(1), Some(1), Some(0)], "{drug}, {adr}");
        // All by the relation itself, which has its pairs.
        let summary = found.summary;
        assert_eq!((summary.labelled_by_name, summary.relations_without_pair), (0, 0));
    }
}

#[test]
fn what_is_said_of_a_mention_holds_for_its_equivalents() {
    let (found, _folder) = brat(&[
        (
            "x.txt",
            "Aspirin (ASA, Bayer) caused bleeding. ASA caused Bleeding or rash.",
        ),
        (
            "x.ann",
            "T1\tDrug 0 7\tAspirin\nT2\tDrug 9 12\tASA\nT3\tADE 28 36\tbleeding\nT4\tDrug 38 41\tASA\nT5\tADE 49 57\tBleeding\n\
             T6\tADE 61 65\trash\nT7\tDrug 14 19\tBayer\nE1\tDrug:T7\n\
             R1\tADE-Drug Arg1:T3 Arg2:T1\n*\tEquiv E1 T2\n*\tEquiv T2 T1 T99\n",
        ),
    ]);
    assert_eq!(found.reasons, ["malformed_line"]);
    assert!(
        found.problems[0].contains("x.ann:11") && found.problems[0].contains("\"T99\""),
        "{:?}",
        found.problems
    );
    assert_eq!(
        found.ids(),
        [
            "x:0-7:28-36",
            "x:9-12:28-36",
            "x:14-19:28-36",
            "x:38-41:49-57",
            "x:38-41:61-65"
        ]
    );
    // Of the second sentence's the first is called like the related ones.
    assert_eq!(found.labels(), [Some(1), Some(1), Some(1), None, Some(0)]);
}

#[test]
fn a_negated_or_speculated_relation_or_event_makes_no_label() {
    let text = ("x.txt", "Aspirin caused no rash, maybe fever.");
    let mentions = "T1\tDrug 0 7\tAspirin\nT2\tADE 18 22\trash\nT3\tADE 30 35\tfever\nT4\tCause 8 14\tcaused\n\
                    R1\tADE-Drug Arg1:T2 Arg2:T1\n";
    let event = "E1\tADE:T4 Treatment:T1 Effect:T3\n";
    let of = |more: &str| brat(&[text, ("x.ann", &format!("{mentions}{more}"))]).0;
    for (more, expected, count) in [
        ("A1\tNegated R1\n".to_owned(), [None, Some(0)], 1),
        ("M1\tSpeculation R1\n".to_owned(), [None, Some(0)], 1),
        (
            "A1\tNegation R1 false\nA2\tNegated T1\nA3\tCertain R1\n".to_owned(),
            [Some(1), Some(0)],
            0,
        ),
        (
            format!("{event}A1\tuncertainty E1 high\nA2\tnegated R1\n"),
            [None, None],
            2,
        ),
        // What is said twice, once without doubt, is said.
        (
            "A1\tNegated R1\nR2\tADE-Drug Arg1:T1 Arg2:T2\n".to_owned(),
            [Some(1), Some(0)],
            1,
        ),
        // An argument that is a negated event.
        (
            "E9\tADE:T3\nA1\tNegated E9\nE1\tADE:T4 Treatment:T1 Effect:E9\n".to_owned(),
            [Some(1), None],
            1,
        ),
        // A negated event that stands for a mention.
        (
            "E9\tADE:T3\nA1\tNegated E9\nR2\tADE-Drug Arg1:E9 Arg2:T1\n".to_owned(),
            [Some(1), None],
            1,
        ),
    ] {
        let found = of(&more);
        assert_eq!(found.problems, [""; 0], "{more}");
        assert_eq!(found.labels(), expected, "{more}");
        assert_eq!(found.summary.qualified_relations, count, "{more}");
    }
}

#[test]
fn what_an_attribute_says_of_an_event_holds_for_the_mention_that_it_stands_for() {
    let mentions = "T1\tDrug 0 7\tAspirin\nT2\tADE 22 26\trash\nT3\tSeverity 15 21\tsevere\nA1\tNegated E1\n";
    for event in ["E1\tADE:T2 Severity:T3\n", "E1\tADE:T2\n"] {
        for end in ["E1", "T2"] {
            let annotations = format!("{mentions}{event}R1\tADE-Drug Arg1:{end} Arg2:T1\n");
            let text = ("x.txt", "Aspirin caused severe rash and fever.");
            let (found, _folder) = brat(&[text, ("x.ann", &annotations)]);
            assert_eq!(found.labels(), [None], "{event}{end}");
            assert_eq!(found.summary.qualified_relations, 1, "{event}{end}");
        }
    }
}

#[test]
fn an_equivalence_names_an_event_too() {
    for named in ["T2", "E1"] {
        let annotations = format!(
            "T1\tDrug 0 7\tAspirin\nT2\tADE 22 26\trash\nT3\tSeverity 15 21\tsevere\nT4\tADE 31 36\tfever\n\
             E1\tADE:T2 Severity:T3\n*\tEquiv {named} T4\nR1\tADE-Drug Arg1:T4 Arg2:T1\n"
        );
        let text = ("x.txt", "Aspirin caused severe rash and fever.");
        let (found, _folder) = brat(&[text, ("x.ann", &annotations)]);
        assert_eq!(found.problems, [""; 0], "{named}");
        assert_eq!(found.labels(), [Some(1), Some(1)], "{named}");
    }
}

#[test]
fn what_names_no_annotation_is_reported() {
    let (found, _folder) = brat(&[
        ("x.txt", "Aspirin caused rash."),
        (
            "x.ann",
            "T1\tDrug 0 7\tAspirin\nT2\tADE 15 19\trash\nR1\tADE-Drug Arg1:T9 Arg2:T1\n\
             E1\tADE:T5 Treatment:T1 Effect:T99\nN1\tReference T88 RxNorm:1\tX\n",
        ),
    ]);
    assert_eq!(
        found.reasons,
        ["malformed_line", "dangling_relation", "dangling_relation"]
    );
    assert!(
        found.problems[1].contains("x.ann:3") && found.problems[1].contains("\"T9\""),
        "{:?}",
        found.problems
    );
}

#[test]
fn folders_are_followed_through_links_once_each() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for name in ["corpus", "corpus/a", "elsewhere"] {
        fs::create_dir(path(name)).unwrap();
    }
    for name in ["corpus/a/x.txt", "elsewhere/y.ann"] {
        fs::write(path(name), "").unwrap();
    }
    std::os::unix::fs::symlink(path("elsewhere"), path("corpus/link.txt")).unwrap();
    std::os::unix::fs::symlink(path("corpus"), path("elsewhere/round")).unwrap();
    std::os::unix::fs::symlink(path("corpus/a"), path("corpus/0")).unwrap();
    let found = find(&[path("corpus")]).unwrap();
    let ids: Vec<&str> = found.iter().map(|files| files.id.as_str()).collect();
    assert_eq!(ids, ["a/x", "link.txt/y"]);
}

#[test]
fn a_byte_order_mark_counts_or_does_not_as_the_mentions_say() {
    for shift in [0, 1] {
        let annotations = format!(
            "T1\tDrug {} {}\tAspirin\nT2\tADE {} {}\trash\n",
            shift,
            7 + shift,
            15 + shift,
            19 + shift
        );
        let (found, _folder) = brat(&[("x.txt", "\u{feff}Aspirin caused rash."), ("x.ann", &annotations)]);
        assert_eq!(found.problems, [""; 0], "{shift}");
        assert_eq!(found.records[0]["text"], "Aspirin caused rash.", "{shift}");
    }
}

#[test]
fn what_equivalent_mentions_are_called_is_one_name_in_whatever_order() {
    let text = "APAP, also aspirin, or acetyl, that is APAP, gave rash and acetyl hurt.";
    let mentions = "T1\tDrug 0 4\tAPAP\nT2\tDrug 11 18\taspirin\nT3\tDrug 23 29\tacetyl\nT4\tDrug 39 43\tAPAP\n\
                    T5\tADE 50 54\trash\nT6\tDrug 59 65\tacetyl\nR1\tADE-Drug Arg1:T5 Arg2:T4\n";
    let equivalents = ["*\tEquiv T3 T4\n", "*\tEquiv T1 T2\n"];
    let label_of_last = |annotations: String| {
        brat(&[("a.txt", text), ("a.ann", &annotations)])
            .0
            .labels()
            .pop()
            .unwrap()
    };
    assert_eq!(label_of_last(format!("{mentions}{}", equivalents[0])), Some(1));
    assert_eq!(
        label_of_last(format!("{mentions}{}{}", equivalents[0], equivalents[1])),
        Some(1)
    );
    assert_eq!(
        label_of_last(format!("{mentions}{}{}", equivalents[1], equivalents[0])),
        Some(1)
    );
}

#[test]
fn a_relations_line_that_cannot_be_read_leaves_no_pair_unrelated() {
    let mentions = "T1\tDrug 0 1\ta\nT2\tADE 2 3\tb\nT3\tADE 4 5\tc\nR1\tADE-Drug Arg1:T2 Arg2:T1\n";
    for line in [
        "R2\tADE-Drug Arg1:T3",
        " R2\tADE-Drug Arg1:T3 Arg2:T1",
        "r2\tADE-Drug Arg1:T3 Arg2:T1",
    ] {
        let (found, _folder) = brat(&[("a.txt", "a b c."), ("a.ann", &format!("{mentions}{line}\n"))]);
        assert_eq!(found.reasons, ["malformed_line"], "{line}");
        assert_eq!(found.labels(), [Some(1), None], "{line}");
    }
}
