use crate::corpora::testing::{Extracted, extract, extract_with};
use crate::corpora::{CorpusError, Format, Labels, Options, Scope};

const DOCUMENT: &str = "1|t|Aspirin caused rash.\n1|a|Later aspirin again. Fever came.\n\
    1\t0\t7\tAspirin\tChemical\tD1\n1\t15\t19\trash\tDisease\tD2|-1\n\
    1\t27\t34\taspirin\tChemical\tMESH:D1\n1\t42\t47\tFever\tDisease\t-1\n1\tCID\tD1\tD2\n";

fn pubtator(text: impl Into<Vec<u8>>) -> Extracted {
    extract(Format::PubTator, text)
}

#[test]
fn title_and_abstract_are_joined_by_one_separator() {
    let options = Options {
        scope: Scope::Document,
        ..Options::default()
    };
    let found = extract_with(Format::PubTator, DOCUMENT, &options).unwrap();
    assert_eq!(found.problems, [""; 0]);
    assert_eq!(
        found.ids(),
        ["1:0-7:15-19", "1:0-7:42-47", "1:27-34:15-19", "1:27-34:42-47"]
    );
    assert_eq!(found.labels(), [Some(1), Some(0), Some(1), Some(0)]);
    assert_eq!(found.records[1]["section"], "title/abstract");
    assert_eq!(
        found.records[1]["text"],
        "Aspirin caused rash.\nLater aspirin again. Fever came."
    );
    assert_eq!(found.records[1]["adr_concepts"], serde_json::json!([]));
}

#[test]
fn a_relation_of_one_of_many_identifiers_relates_what_has_it() {
    let options = Options {
        scope: Scope::Document,
        ..Options::default()
    };
    for count in [2, 8, 9, 40] {
        let all = |kind: &str, but: usize| {
            let ids = (0..count).filter(|&i| i != but).map(|i| format!("{kind}{i}"));
            ids.collect::<Vec<_>>().join("|")
        };
        // Each identifier is a relation's end; one relation is of the drug's last and the first reaction's last.
        let mut text = format!(
            "1|t|Aspirin caused rash and fever.\n1\t0\t7\tAspirin\tChemical\t{}\n1\t15\t19\trash\tDisease\t{}\n\
             1\t24\t29\tfever\tDisease\t{}\n",
            all("C", usize::MAX),
            all("D", usize::MAX),
            all("D", count - 1),
        );
        let last = count - 1;
        for i in 0..last {
            text += &format!("1\tCID\tC{i}\tC{last}\n1\tCID\tD{i}\tD0\n");
        }
        text += &format!("1\tCID\tC{last}\tD{last}\n");
        let found = extract_with(Format::PubTator, text, &options).unwrap();
        assert_eq!(found.labels(), [Some(1), Some(0)], "{count} identifiers");
    }
}

#[test]
fn a_relation_that_was_cut_short_may_be_of_any_pair() {
    let options = Options {
        scope: Scope::Document,
        ..Options::default()
    };
    let found = extract_with(Format::PubTator, format!("{DOCUMENT}1\tCID\tD1\n"), &options).unwrap();
    assert_eq!(found.reasons, ["malformed_line"]);
    assert_eq!(found.labels(), [Some(1), None, Some(1), None]);
}

#[test]
fn a_pair_in_two_sentences_does_not_come_out_in_sentence_scope() {
    let found = pubtator(DOCUMENT);
    assert_eq!(found.ids(), ["1:0-7:15-19"]);
    assert_eq!(found.records[0]["text"], "Aspirin caused rash.");
    let passage = Options {
        scope: Scope::Passage,
        ..Options::default()
    };
    let found = extract_with(Format::PubTator, DOCUMENT, &passage).unwrap();
    assert_eq!(found.ids(), ["1:0-7:15-19", "1:27-34:42-47"]);
}

#[test]
fn documents_need_no_blank_line_between_them_and_may_have_crlf() {
    let second = DOCUMENT
        .replace("1|", "22|")
        .replace("\n1\t", "\n22\t")
        .replace('\n', "\r\n");
    // The separator of the second document's title and abstract is still one character.
    let found = pubtator(format!("\u{feff}{DOCUMENT}{second}"));
    assert_eq!(found.problems, [""; 0]);
    assert_eq!(found.ids(), ["1:0-7:15-19", "22:0-7:15-19"]);
}

#[test]
fn a_repeated_document_keeps_its_pairs_apart() {
    let found = pubtator(format!("{DOCUMENT}\n{DOCUMENT}"));
    assert_eq!(found.ids(), ["1:0-7:15-19", "1:0-7:15-19~2"]);
    assert_eq!(found.summary.repeated_documents, 1);
}

#[test]
fn a_repeated_document_without_annotations_is_one_of_its_own() {
    let bare = "1|t|Aspirin caused rash.\n1|a|Nothing is said here.\n";
    let found = pubtator(format!("{bare}{bare}{DOCUMENT}"));
    assert_eq!(found.problems, [""; 0]);
    assert_eq!(found.ids(), ["1:0-7:15-19~3"]);
    assert_eq!(found.records[0]["text"], "Aspirin caused rash.");
    assert_eq!((found.summary.documents, found.summary.repeated_documents), (3, 2));
}

#[test]
fn what_does_not_match_is_reported_with_its_line_and_the_rest_goes_on() {
    let text = format!(
        "{DOCUMENT}1\t0\t6\tAspirin\tChemical\tD1\n1\t900\t907\tAspirin\tChemical\tD1\n1\t3\t3\t\tDisease\tD1\n\
         garbage\n1\tx\n1\t5\n1\t1\t99999999999999999999999\ta\tDisease\tD2\n2\t0\t7\tAspirin\tChemical\tD1\n"
    );
    let found = pubtator(text);
    assert_eq!(found.ids(), ["1:0-7:15-19"]);
    let expected = [
        ("test:11:", "malformed_line"),
        ("test:12:", "malformed_line"),
        ("test:13:", "malformed_line"),
        ("test:14:", "malformed_line"),
        ("test:15:", "stray_line"),
        ("test:8:", "text_mismatch"),
        ("test:9:", "outside_text"),
        ("test:10:", "missing_text"),
    ];
    assert_eq!(found.problems.len(), expected.len(), "{:#?}", found.problems);
    for ((place, reason), problem) in expected.iter().zip(&found.problems) {
        assert!(
            problem.starts_with(place) && problem.ends_with(&format!("({reason})")),
            "{problem}"
        );
    }
    assert!(
        found.problems[5].contains("expected \"Aspirin\", found \"Aspiri\""),
        "{}",
        found.problems[5]
    );
    assert_eq!((found.summary.mentions, found.summary.resolved), (7, 4));
}

#[test]
fn a_strict_run_ends_at_the_first_problem() {
    let options = Options {
        strict: true,
        ..Options::default()
    };
    let error = extract_with(Format::PubTator, "garbage\n", &options).err().unwrap();
    assert!(matches!(error, CorpusError::Refused(_)), "{error}");
    assert!(error.to_string().starts_with("test:1: "), "{error}");
}

#[test]
fn a_damaged_text_line_costs_its_own_document() {
    let mut text = DOCUMENT.replace("Later", "L\u{1}ter").into_bytes();
    text.iter_mut().filter(|byte| **byte == 1).for_each(|byte| *byte = 0xff);
    text.extend(DOCUMENT.replace("1|", "2|").replace("1\t", "2\t").bytes());
    let found = pubtator(text);
    assert_eq!(found.reasons, ["invalid_utf8"]);
    assert_eq!(found.ids(), ["2:0-7:15-19"]);
    assert_eq!((found.summary.documents, found.summary.mentions), (1, 4));
}

#[test]
fn a_document_that_is_too_large_is_read_past() {
    let long = format!(
        "7|t|{}\n7|a|x\n7\t0\t7\taspirin\tChemical\tD1\n",
        "aspirin ".repeat(1000)
    );
    let many = format!("8|t|a\n{}", "8\t0\t1\ta\tChemical\tD1\n".repeat(100));
    let options = Options {
        max_document_bytes: 500,
        ..Options::default()
    };
    let found = extract_with(Format::PubTator, format!("{long}{many}{DOCUMENT}"), &options).unwrap();
    assert_eq!(found.reasons, ["too_large", "too_large"]);
    assert_eq!(found.ids(), ["1:0-7:15-19"]);
    assert_eq!(found.summary.documents, 1);
}

#[test]
fn other_formats_are_told_by_their_first_character() {
    for text in ["<collection/>", "\n{\"documents\":[]}", "[]"] {
        assert_eq!(pubtator(text).reasons, ["wrong_format"]);
    }
    assert_eq!(pubtator("").reasons, [""; 0]);
}

#[test]
fn labels_are_there_where_the_corpus_has_relations() {
    let without = DOCUMENT.replace("1\tCID\tD1\tD2\n", "");
    let labels = |text: &str, labels, relation: &str| {
        let options = Options {
            labels,
            ..Options::default()
        };
        extract_with(Format::PubTator, text.replace("CID", relation), &options)
            .unwrap()
            .labels()
    };
    assert_eq!(labels(DOCUMENT, Labels::Auto, "CID"), [Some(1)]);
    assert_eq!(labels(DOCUMENT, Labels::Auto, "Positive_Correlation"), [Some(1)]);
    // "treats" is a relation, and says that this drug did not cause this.
    assert_eq!(labels(DOCUMENT, Labels::Auto, "Negative_Correlation"), [Some(0)]);
    assert_eq!(labels(&without, Labels::Auto, "CID"), [None]);
    assert_eq!(labels(&without, Labels::All, "CID"), [Some(0)]);
    assert_eq!(labels(DOCUMENT, Labels::None, "CID"), [None]);
}

#[test]
fn relations_of_what_no_mention_is_are_reported() {
    let found = pubtator(DOCUMENT.to_owned() + "1\tCID\tD1\tD99\n1\tCID\t-\tD2\n");
    assert_eq!(found.reasons, ["dangling_relation"; 2]);
    assert!(found.problems[0].contains("test:8: ") && found.problems[0].contains("\"D99\""));
    assert_eq!((found.summary.relations, found.summary.relations_unresolved), (3, 2));
    assert_eq!(found.labels(), [Some(1)]);
}

#[test]
fn a_mention_with_odd_offsets_is_no_relation() {
    let padded = DOCUMENT.replace("1\t0\t7", "1\t 0\t 7");
    assert_eq!(pubtator(padded.as_str()).ids(), ["1:0-7:15-19"]);
    for odd in ["", "NA", "-1", "0x0"] {
        let found = pubtator(DOCUMENT.replace("1\t0\t7", &format!("1\t{odd}\t7")));
        assert_eq!(found.reasons, ["malformed_line"], "{odd}");
        assert_eq!(found.summary.relations, 1, "{odd}");
    }
    assert_eq!(
        pubtator(DOCUMENT.replace("\tCID\t", "\t\t")).reasons,
        ["malformed_line"]
    );
    // BioRED relates genes by numbers.
    let genes = DOCUMENT
        .replace("\tD2|-1", "\t12")
        .replace("CID\tD1\tD2", "CID\tD1\t12\tNovel\t");
    assert_eq!(pubtator(genes).labels(), [Some(1)]);
}

#[test]
fn files_that_were_put_together_keep_all_their_documents() {
    let second = DOCUMENT.replace("1|", "2|").replace("\n1\t", "\n2\t");
    let found = pubtator(format!("\u{feff}{DOCUMENT}\u{feff}{second}"));
    assert_eq!(found.problems, [""; 0]);
    assert_eq!(found.ids(), ["1:0-7:15-19", "2:0-7:15-19"]);
    // One document without a title after another of the same name.
    let untitled = DOCUMENT
        .lines()
        .skip(1)
        .filter(|line| !line.contains("CID"))
        .collect::<Vec<_>>()
        .join("\n");
    let untitled = untitled.replace("27\t34", "6\t13").replace("42\t47", "21\t26");
    let untitled: String = untitled
        .lines()
        .filter(|line| !line.contains("\t7\t") && !line.contains("\t19\t"))
        .fold(String::new(), |all, line| all + line + "\n");
    let found = pubtator(untitled.repeat(2));
    assert_eq!(
        (found.problems.len(), found.summary.documents),
        (0, 2),
        "{:?}",
        found.problems
    );
}

#[test]
fn lines_that_end_in_carriage_returns_alone_are_reported() {
    assert_eq!(pubtator(DOCUMENT.replace('\n', "\r")).reasons, ["malformed_line"]);
    assert_eq!(
        pubtator(DOCUMENT.replace("caused rash", "caused\rrash")).problems,
        [""; 0]
    );
}

#[test]
fn a_line_that_may_have_been_a_relation_leaves_no_pair_unrelated() {
    let text = "1|t|Aspirin rash warfarin bleed\n1|a|\n1\t0\t7\tAspirin\tChemical\tD1\n1\t8\t12\trash\tDisease\tD2\n\
                1\t13\t21\twarfarin\tChemical\tD3\n1\t22\t27\tbleed\tDisease\tD4\n1\tCID\tD3\tD4\n";
    let labels = |line: &[u8]| {
        let found = pubtator([text.as_bytes(), line, b"\n"].concat());
        assert_eq!(
            found.problems.len(),
            usize::from(!line.is_empty()),
            "{:?}",
            found.problems
        );
        let of_document = found.problems.iter().all(|problem| problem.contains("document \"1\""));
        assert!(of_document, "{:?}", found.problems);
        let [of_aspirin, of_warfarin] = [0, 3].map(|i| found.labels()[i]);
        assert_eq!(of_warfarin, Some(1));
        of_aspirin
    };
    assert_eq!(labels(b""), Some(0));
    for line in [
        &b"1\tCID\tD1"[..],
        b"1\tCID\tD1\tD2\t\xff",
        b"1 CID D1 D2",
        b"1\t1-CID\tD1\tD2",
        b"1\t1-CID\tD1\tD2\tNovel",
        b"1\t\tD1\tD2",
        b"1\tCID D1\tD2",
    ] {
        assert_eq!(labels(line), None, "{}", String::from_utf8_lossy(line));
    }
    // Lines of mentions tell themselves.
    for line in [
        &b"1\t3\t4\tx"[..],
        b"1\t3a\t4\trash\tDisease\tD2",
        b"1 8 12 rash Disease D2",
    ] {
        assert_eq!(labels(line), Some(0), "{}", String::from_utf8_lossy(line));
    }
}
