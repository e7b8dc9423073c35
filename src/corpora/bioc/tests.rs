use crate::corpora::testing::{Extracted, extract, extract_with};
use crate::corpora::{CompositeUse, Format, Options, Scope};

fn bioc(text: impl Into<Vec<u8>>) -> Extracted {
    extract(Format::Bioc, text)
}

fn annotation(kind: &str, concept: &str, text: &str, locations: &str) -> String {
    let locations: String = locations
        .split(' ')
        .filter_map(|location| location.split_once('+'))
        .map(|(offset, length)| format!("<location offset=\"{offset}\" length='{length}'/>"))
        .collect();
    format!(
        "<annotation id='{kind}'><infon key=\"type\">{kind}</infon><infon key=\"MESH\">{concept}</infon>{locations}\
         <text>{text}</text></annotation>"
    )
}

fn xml(id: &str, text: &str, annotations: &str, relations: &str) -> String {
    format!(
        "<document><id>{id}</id><infon key='x'>y</infon><passage><infon key=\"type\">abstract</infon>\
         <offset>100</offset><text>{text}</text>{annotations}</passage>{relations}</document>\n"
    )
}

fn plain(id: &str) -> String {
    let annotations = annotation("Chemical", "D1", "Aspirin", "100+7") + &annotation("Disease", "D2", "rash", "115+4");
    let relation = "<relation id='R'><infon key='relation'>CID</infon><infon key='Chemical'>D1</infon>\
                    <infon key='Disease'>D2</infon></relation>";
    xml(id, "Aspirin caused rash.", &annotations, relation)
}

fn collection(documents: &str) -> String {
    format!(
        "<?xml version='1.0' encoding='UTF-8'?><!DOCTYPE collection SYSTEM 'BioC.dtd'>\n<collection>{documents}</collection>"
    )
}

const JSON: &str = r#"{"id": "1", "infons": {}, "passages": [{"infons": {"section_type": "ABSTRACT"}, "offset": 100,
 "text": "Aspirin \"caused\" r\u00e4sh.", "annotations": [
 {"id": "a", "infons": {"type": "Chemical", "identifier": "MESH:D1"}, "text": "Aspirin", "locations": [{"offset": 100, "length": 7}]},
 {"id": "b", "infons": {"type": "Disease", "identifier": null}, "text": "räsh", "locations": [{"offset": 117, "length": 4}]}]}],
 "relations": [{"infons": {"type": "cause"}, "nodes": [{"refid": "a", "role": ""}, {"refid": "b", "role": ""}]}]}"#;

#[test]
fn offsets_count_from_the_document_and_relations_name_concepts() {
    let found = bioc(collection(&plain("1")));
    assert_eq!(found.problems, [""; 0]);
    assert_eq!(found.ids(), ["1:100-107:115-119"]);
    assert_eq!(found.labels(), [Some(1)]);
    assert_eq!(found.records[0]["section"], "abstract");
}

#[test]
fn elements_may_have_a_namespaces_prefix() {
    let expected = bioc(collection(&(plain("1") + &plain("2"))));
    let prefixed = |xml: &str| {
        let ends = xml.replace("</", "</bioc:");
        ends.split('<')
            .map(|part| match part.starts_with(|c: char| c.is_ascii_lowercase()) {
                true => format!("<bioc:{part}"),
                false => format!("<{part}"),
            })
            .collect::<String>()[1..]
            .to_owned()
    };
    let documents = prefixed(&(plain("1") + &plain("2")));
    assert!(
        documents.starts_with("<bioc:document><bioc:id>1</bioc:id>"),
        "{documents}"
    );
    let of_documents = collection(&documents);
    for xml in [
        &of_documents,
        &of_documents
            .replace("collection>", "b:collection>")
            .replace("</b:b:", "</b:"),
    ] {
        let found = bioc(xml.as_str());
        assert_eq!(
            (&found.problems, &found.records),
            (&Vec::new(), &expected.records),
            "{xml}"
        );
    }
    // One that breaks off says so, and another namespace's document is none.
    let torn = bioc(of_documents.replace("</collection>", ""));
    assert_eq!((torn.reasons, torn.records.len()), (vec!["malformed_document"], 2));
    let other = plain("1").replace("<infon key='x'>y", "<infon key='x'><x:document>y</x:document>");
    assert!(other.contains("x:document"));
    assert_eq!(bioc(collection(&other)).problems, [""; 0]);
}

#[test]
fn references_cdata_comments_and_line_ends_are_text_as_xml_says() {
    let annotations = annotation("Chemical", "D1", "A&amp;B<!-- no --> &#x3b1;", "100+5")
        + &annotation("Disease", "D2", "<![CDATA[<rash>]]>", "110+6");
    let found = bioc(collection(&xml(
        "1",
        "A&amp;B &#945;\r\nand<!-- <document> --><![CDATA[ <rash>]]>.",
        &annotations,
        "",
    )));
    assert_eq!(found.problems, [""; 0]);
    assert_eq!(found.records[0]["text"], "A&B α\nand <rash>.");
}

#[test]
fn entities_that_a_file_defines_are_not_expanded() {
    let lol = "<!DOCTYPE collection [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;&a;&a;&a;&a;&a;\">\
               <!ENTITY c SYSTEM \"file:///etc/passwd\">]>";
    for entity in ["&b;", "&c;"] {
        let found = bioc(format!(
            "{lol}<collection>{}{}</collection>",
            xml("1", entity, "", ""),
            plain("2")
        ));
        assert_eq!(found.reasons, ["malformed_document"]);
        assert!(
            found.problems[0].contains(&entity[..2]) && found.problems[0].contains("document \"1\""),
            "{:?}",
            found.problems
        );
        assert_eq!(found.ids(), ["2:100-107:115-119"]);
    }
}

#[test]
fn a_malformed_document_costs_itself_alone() {
    for bad in [
        "<document><id>7</id><passage></document>",
        "<document><id>7</id><passage>",
        "<document><passage/></document>",
        "<document><id>7</id><passage><offset>x</offset></passage></document>",
        "<document><id>7</id><passage><infon key=></infon></passage></document>",
        "<document/>",
        "</document>",
    ] {
        let found = bioc(collection(&format!("{}\n{bad}\n{}", plain("1"), plain("2"))));
        assert_eq!(found.ids(), ["1:100-107:115-119", "2:100-107:115-119"], "{bad}");
        assert_eq!(found.reasons, ["malformed_document"], "{bad}");
        assert!(found.problems[0].starts_with("test:4:"), "{bad} {:?}", found.problems);
    }
    let torn = collection(&plain("1")) + "<document><id>2";
    assert_eq!(bioc(torn).reasons, ["malformed_document"]);
    let mut bytes = collection(&(plain("1") + &plain("3") + &plain("2"))).into_bytes();
    let at = bytes.windows(3).position(|window| window == b">3<").unwrap();
    bytes[at + 1] = 0xff;
    let found = bioc(bytes);
    assert_eq!(
        (found.reasons.as_slice(), found.records.len()),
        (&["invalid_utf8"][..], 2)
    );
}

#[test]
fn a_document_that_is_too_large_is_read_past() {
    let large = xml("7", &"x".repeat(600_000), "", "");
    let options = Options {
        max_document_bytes: 1000,
        ..Options::default()
    };
    let text = collection(&(plain("1") + &large + &plain("2")));
    let found = extract_with(Format::Bioc, text, &options).unwrap();
    assert_eq!((found.reasons.as_slice(), found.ids().len()), (&["too_large"][..], 2));
    let large = JSON.replace("caused", &"x".repeat(600_000)).replace('\n', " ");
    let small = JSON.replace('\n', " ");
    for text in [
        format!("[{small},{large},{small}]"),
        format!("{small}\n{large}\n{small}\n"),
    ] {
        let found = extract_with(Format::Bioc, text, &options).unwrap();
        assert_eq!((found.reasons.as_slice(), found.ids().len()), (&["too_large"][..], 2));
    }
}

#[test]
fn several_locations_are_one_discontinuous_mention() {
    let annotations =
        annotation("Chemical", "D1", "X", "100+1") + &annotation("Disease", "D2", "liver damage", "109+5 125+6");
    let found = bioc(collection(&xml(
        "1",
        "X caused liver and renal damage.",
        &annotations,
        "",
    )));
    assert_eq!(found.problems, [""; 0]);
    assert_eq!(found.ids(), ["1:100-101:109-114,125-131"]);
    assert_eq!(found.records[0]["adr"], "liver and renal damage");
    assert_eq!(found.labels(), [None]);
}

#[test]
fn a_composite_mention_is_one_mention_or_its_parts() {
    let role = |annotation: String, role: &str| {
        annotation.replace("<text>", &format!("<infon key=\"CompositeRole\">{role}</infon><text>"))
    };
    let annotations = annotation("Chemical", "D1", "X", "100+1")
        + &role(
            annotation("Disease", "D2|D3", "liver and renal damage", "109+22"),
            "CompositeMention",
        )
        + &role(
            annotation("Disease", "D2", "liver damage", "109+5 125+6"),
            "IndividualMention",
        )
        + &role(
            annotation("Disease", "D3", "renal damage", "119+12"),
            "IndividualMention",
        );
    let text = collection(&xml("1", "X caused liver and renal damage.", &annotations, ""));
    let parts = Options {
        composite: CompositeUse::Parts,
        ..Options::default()
    };
    assert_eq!(bioc(text.as_str()).ids(), ["1:100-101:109-131"]);
    let found = extract_with(Format::Bioc, text, &parts).unwrap();
    assert_eq!(found.ids(), ["1:100-101:109-114,125-131", "1:100-101:119-131"]);
}

#[test]
fn text_may_stand_in_sentences() {
    let sentence = |offset: u64, text: &str, annotations: &str| {
        format!("<sentence><offset>{offset}</offset><text>{text}</text>{annotations}</sentence>")
    };
    let passage = sentence(
        10,
        "X. Caused rash",
        &(annotation("Chemical", "D1", "X", "10+1") + &annotation("Disease", "D2", "rash", "20+4")),
    ) + &sentence(25, "Fever came", &annotation("Disease", "D3", "Fever", "25+5"));
    let text = collection(&format!(
        "<document><id>1</id><passage><offset>10</offset>{passage}</passage></document>"
    ));
    let found = bioc(text.as_str());
    assert_eq!(found.problems, [""; 0]);
    // The corpus' own sentences, not ours.
    assert_eq!(found.records[0]["text"], "X. Caused rash");
    assert_eq!(found.records.len(), 1);
    let options = Options {
        window: Some(1),
        ..Options::default()
    };
    let found = extract_with(Format::Bioc, text, &options).unwrap();
    assert_eq!(found.records[0]["text"], "X. Caused rash Fever came");
}

#[test]
fn json_comes_as_a_collection_as_pubtator3_as_an_array_and_line_by_line() {
    let line = JSON.replace('\n', " ");
    let second = line.replacen("\"1\"", "2", 1);
    for text in [
        format!(
            "{{\"source\": \"documents\", \"key\": [1, {{\"documents\": []}}], \"documents\": [{JSON}, {second}], \"date\": \"]\"}}"
        ),
        format!("{{\"PubTator3\": [{JSON},{second}]}}\n"),
        format!("[{JSON},\n{second}]"),
        format!("{line}\n{second}\n"),
        format!("{line}{second}"),
        format!("[{{\"documents\":[{JSON}]}},{{\"documents\":[{second}],\"documents\":[]}}]"),
    ] {
        let found = bioc(text.as_str());
        assert_eq!(found.problems, [""; 0], "{text}");
        assert_eq!(found.ids(), ["1:100-107:117-121", "2:100-107:117-121"], "{text}");
        assert_eq!(found.labels(), [Some(1), Some(1)], "{text}");
        assert_eq!(found.records[0]["text"], "Aspirin \"caused\" räsh.");
    }
}

#[test]
fn a_malformed_json_document_costs_itself_alone() {
    let line = JSON.replace('\n', " ");
    let good = |id: &str| line.replacen("\"1\"", &format!("\"{id}\""), 1);
    for bad in [
        r#"{"id": "x", "passages": 7}"#,
        r#"{"id": "x", "passages": [{"annotations": [7]}]}"#,
        r#"{"id": nul}"#,
        r#"{"passages": []}"#,
        "17",
        r#"{"id": "\ud800"}"#,
    ] {
        let found = bioc(format!("{{\"documents\": [{}, {bad}, {}]}}", good("1"), good("2")));
        assert_eq!(found.ids(), ["1:100-107:117-121", "2:100-107:117-121"], "{bad}");
        assert_eq!(found.reasons, ["malformed_document"], "{bad}");
    }
    // A torn line costs that line.
    for torn in [
        r#"{"id": "x", "passages": [{"text": "A"#,
        r#"{"id": "x", "passages": ["#,
    ] {
        let found = bioc(format!("{}\n{torn}\n{}\n", good("1"), good("2")));
        assert_eq!(found.ids(), ["1:100-107:117-121", "2:100-107:117-121"], "{torn}");
        assert_eq!(found.reasons, ["malformed_document"], "{torn}");
    }
}

#[test]
fn null_is_nothing_wherever_a_text_could_stand() {
    let without_text = JSON.replace(
        "[{\"infons\": {\"section_type\"",
        "[{\"infons\": null, \"offset\": 0, \"text\": null}, {\"infons\": {\"section_type\"",
    );
    assert!(without_text != JSON);
    let options = Options {
        scope: Scope::Document,
        ..Options::default()
    };
    let found = extract_with(Format::Bioc, without_text, &options).unwrap();
    assert_eq!(found.problems, [""; 0]);
    let text = found.records[0]["text"].as_str().unwrap();
    assert_eq!(text.trim_start(), "Aspirin \"caused\" räsh.");
    assert_eq!(found.records[0]["adr_concepts"], serde_json::json!([]));
    let found = bioc(JSON.replace("\"text\": \"räsh\"", "\"text\": null"));
    assert_eq!(found.reasons, ["missing_text", "dangling_relation"]);
    let found = bioc(JSON.replace("\"id\": \"1\"", "\"id\": null"));
    assert_eq!(found.reasons, ["malformed_document"]);
    let found = bioc(JSON.replace("{\"type\": \"cause\"}", "{\"type\": null}"));
    assert_eq!(found.summary.relation_types.iter().collect::<Vec<_>>(), [("", 1)]);
}

#[test]
fn a_lost_relation_without_a_type_may_be_any_even_where_only_some_are_chosen() {
    let relation =
        r#"{"infons": {"type": "cause"}, "nodes": [{"refid": "a", "role": ""}, {"refid": "b", "role": ""}]}"#;
    assert!(JSON.contains(relation));
    let options = Options {
        untyped_relations: false,
        ..Options::default()
    };
    for (infons, ends, label) in [
        ("{}", ["a", "lost"], None),
        (r#"{"type": "cause"}"#, ["a", "lost"], None),
        (r#"{"type": "dosage"}"#, ["a", "lost"], Some(0)),
        ("{}", ["a", "b"], Some(0)),
    ] {
        let [one, other] = ends;
        let own = format!(r#"{{"infons": {infons}, "nodes": [{{"refid": "{one}"}}, {{"refid": "{other}"}}]}}"#);
        let found = extract_with(Format::Bioc, JSON.replace(relation, &own), &options).unwrap();
        assert_eq!(found.labels(), [label], "{infons} {ends:?}: {:?}", found.problems);
    }
}

#[test]
fn collections_without_documents_may_follow_one_another() {
    let extracted = bioc("{\"documents\": []}\n".repeat(100_000) + JSON);
    assert_eq!(extracted.ids(), bioc(JSON).ids());
}

#[test]
fn deep_nesting_is_one_malformed_document() {
    let deep = format!(
        "{{\"id\": \"1\", \"passages\": [{}]}}",
        r#"{"sentences":["#.repeat(100_000) + &"]}".repeat(100_000)
    );
    assert_eq!(bioc(deep).reasons, ["malformed_document"]);
    let inside = "<a>".repeat(100_000);
    let found = bioc(collection(&format!("{}{}", xml("1", &inside, "", ""), plain("2"))));
    assert_eq!(found.ids(), ["2:100-107:115-119"]);
    let balanced = xml("1", "", &(inside + &"</a>".repeat(100_000)), "");
    assert_eq!(bioc(collection(&balanced)).problems, [""; 0]);
}

#[test]
fn files_of_another_kind_are_one_problem() {
    for text in [
        "1|t|x\n",
        "<html></html>",
        "<?xml version='1.0' encoding=\"ISO-8859-1\"?><collection><document><id>1</id></document></collection>",
        "\u{feff}PK",
    ] {
        assert_eq!(bioc(text).reasons, ["wrong_format"], "{text}");
    }
    assert_eq!(bioc("").reasons, [""; 0]);
    assert_eq!(bioc(collection("")).reasons, [""; 0]);
    assert_eq!(bioc("{\"documents\": []}").reasons, [""; 0]);
}

#[test]
fn markup_that_does_not_end_is_one_problem() {
    let document = plain("1");
    for (broken, ids) in [
        ("<collection ".to_owned(), 0),
        ("<collection><!-- ".to_owned(), 0),
        ("<collection><![CDATA[ <document> ".to_owned(), 0),
        ("<collection><?xml ".to_owned(), 0),
        (format!("<collection>{document}</document "), 1),
        (format!("<collection>{document}<collection x"), 1),
        (format!("<collection>{document}<!-- <document>"), 1),
    ] {
        let found = bioc(broken.as_str());
        assert_eq!(
            (found.ids().len(), found.reasons.len()),
            (ids, 1),
            "{broken}: {:?}",
            found.problems
        );
    }
}

#[test]
fn a_file_that_was_converted_from_utf_16_may_still_declare_it() {
    let found = bioc(collection(&plain("1")).replace("UTF-8", "UTF-16"));
    assert_eq!(found.ids(), ["1:100-107:115-119"]);
    assert_eq!(found.reasons, [""; 0]);
}

#[test]
fn a_file_that_breaks_off_between_documents_says_so() {
    let both = collection(&(plain("1") + &plain("2")));
    let end_of_first = both.find("</document>").unwrap() + "</document>".len();
    for broken in [
        both[..end_of_first].to_owned(),
        both[..end_of_first].to_owned() + "\n<document",
        format!("{}<!-- half{}", &both[..end_of_first], &both[end_of_first..]),
    ] {
        let found = bioc(broken.as_str());
        assert_eq!(found.reasons, ["malformed_document"], "{broken}");
        assert_eq!(found.ids(), ["1:100-107:115-119"]);
    }
    for broken in [
        format!("{{\"documents\": [{JSON},"),
        format!("[{JSON},"),
        format!("{{\"PubTator3\": [{JSON}"),
        format!("{{\"documents\": [{JSON}]"),
        format!("{{\"documents\": [{JSON}], \"date\": \"2"),
    ] {
        let found = bioc(broken.as_str());
        assert_eq!(found.reasons, ["malformed_document"], "{broken}");
        assert_eq!(found.records.len(), 1);
    }
    // What is empty is whole.
    for whole in [
        "<collection/>".to_owned(),
        "<collection />".to_owned(),
        both.clone() + "<collection\n/>",
    ] {
        assert_eq!(bioc(whole.as_str()).problems, [""; 0], "{whole}");
    }
    // A document may stand alone.
    assert_eq!(bioc(plain("1")).problems, [""; 0]);
}

#[test]
fn annotations_of_the_document_are_where_their_offsets_are() {
    let annotations = annotation("Chemical", "D1", "Aspirin", "100+7") + &annotation("Disease", "D2", "rash", "115+4");
    let found = bioc(collection(&xml("1", "Aspirin caused rash.", "", &annotations)));
    assert_eq!(found.problems, [""; 0]);
    assert_eq!(found.ids(), ["1:100-107:115-119"]);
    let (passages, rest) = JSON.split_once(", \"annotations\"").unwrap();
    let (annotations, relations) = rest.split_once("}],\n").unwrap();
    let moved = format!("{passages}}}], \"annotations\"{annotations},{relations}");
    let found = bioc(moved.as_str());
    assert_eq!(found.problems, [""; 0], "{moved}");
    assert_eq!(found.labels(), [Some(1)]);
}

#[test]
fn relations_relate_each_two_of_what_is_there_and_say_what_is_not() {
    let of = |infons: &str, nodes: &str| {
        let relation = format!("<relation id='R'>{infons}{nodes}</relation>");
        let annotations = annotation("Chemical", "D1", "Aspirin", "100+7")
            + &annotation("Disease", "D2", "rash", "115+4")
            + &annotation("ADE", "D3", "fever", "124+5");
        bioc(collection(&xml(
            "1",
            "Aspirin caused rash and fever.",
            &annotations,
            &relation,
        )))
    };
    let kind = |name: &str, value: &str| format!("<infon key='{name}'>{value}</infon>");
    let nodes = |ids: &[&str]| {
        ids.iter()
            .map(|id| format!("<node refid='{id}' role=''/>"))
            .collect::<String>()
    };
    let all = of(&kind("type", "cause"), &nodes(&["Chemical", "Disease", "ADE"]));
    assert_eq!((all.problems.len(), all.labels()), (0, vec![Some(1), Some(1)]));
    for ids in [&[][..], &["Chemical", "T9"]] {
        let found = of(&kind("type", "cause"), &nodes(ids));
        assert_eq!(found.reasons, ["dangling_relation"], "{ids:?}");
        assert!(found.problems[0].contains("document \"1\""), "{:?}", found.problems);
        assert_eq!((found.summary.relations, found.summary.relations_unresolved), (1, 1));
        assert_eq!(found.labels(), [None, None], "it may have been either");
    }
    // PubTator3 names concepts in infons, and both in one node.
    let infons = kind("type", "cause") + &kind("role1", "Chemical|D1") + &kind("role2", "Disease|D2");
    let found = of(&infons, &nodes(&["0"]));
    assert_eq!((found.problems.len(), found.summary.other_relations), (0, 0));
    assert_eq!(found.labels(), [Some(1), Some(0)]);
    // Of one mention: valid, and no statement of two. Of a relation: valid too, but it may relate any.
    let found = of(&kind("type", "cause"), &nodes(&["Chemical"]));
    assert_eq!((found.problems.len(), found.summary.other_relations), (0, 1));
    let found = of(&kind("type", "cause"), &nodes(&["Chemical", "R"]));
    assert_eq!((found.problems.len(), found.summary.relations_unresolved), (0, 1));
    assert_eq!(found.labels(), [None, None]);
    // The infon's name is told by its letters, as types are.
    let treats = of(
        &kind("Relation_Type", "Negative_Correlation"),
        &nodes(&["Chemical", "Disease"]),
    );
    assert_eq!(treats.labels(), [Some(0), Some(0)]);
}

#[test]
fn a_json_object_without_passages_is_no_document() {
    let found = bioc(
        r#"{"id": 1, "text": "Aspirin gave rash.", "drug": "Aspirin", "adr": "rash"}
{"id": "2", "a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6}
{"id": "3"}
{"id": "4", "passages": null}
"#,
    );
    assert_eq!(found.reasons, ["malformed_document"; 3]);
    for (problem, expected) in found.problems.iter().zip([
        r#"test:1: document "1": expected a BioC document with "passages", found the keys "adr", "drug", "id", "text"; is this JSONL for crag score?"#,
        r#"found the keys "a", "b", "c", "d", "e", "f", … (malformed_document)"#,
        r#"found the key "id" alone"#,
    ]) {
        assert!(problem.contains(expected), "{problem}");
    }
    assert_eq!(found.summary.documents, 1);
}

#[test]
fn a_relation_whose_infons_negate_it_makes_no_label() {
    for (infon, expected) in [
        (r#""negated": true"#, None),
        (r#""Polarity": "negative""#, None),
        (r#""speculated": "yes""#, None),
        (r#""negated": false"#, Some(1)),
    ] {
        let found = bioc(JSON.replace(r#""type": "cause""#, &format!(r#""type": "cause", {infon}"#)));
        assert_eq!(found.problems, [""; 0], "{infon}");
        assert_eq!(found.labels(), [expected], "{infon}");
        assert_eq!(
            found.summary.qualified_relations,
            u64::from(expected.is_none()),
            "{infon}"
        );
    }
}

/// Of `0` and `1` as [`of_drug`] calls them.
const FIRST_TWO: &str = "<relation id='R'><infon key='type'>CID</infon><node refid='0'/><node refid='1'/></relation>";

/// Annotations `0` to `2` of "DRUG gave rash, fever." at `offset`; the drug's name has seven letters.
fn of_drug(drug: &str, offset: u64) -> String {
    let annotation = |id: &str, kind: &str, text: &str, offset: u64| {
        annotation(kind, "", text, &format!("{offset}+{}", text.len()))
            .replace(&format!("<annotation id='{kind}'>"), &format!("<annotation id='{id}'>"))
    };
    annotation("0", "Chemical", drug, offset)
        + &annotation("1", "Disease", "rash", offset + 13)
        + &annotation("2", "Disease", "fever", offset + 19)
}

#[test]
fn identifiers_may_begin_anew_in_each_passage() {
    let passage = |offset: u64, drug: &str, relation: &str| {
        let text = format!("{drug} gave rash, fever.");
        let annotations = of_drug(drug, offset);
        format!("<passage><offset>{offset}</offset><text>{text}</text>{annotations}{relation}</passage>")
    };
    let document = |passages: &str, relation: &str| {
        bioc(collection(&format!(
            "<document><id>1</id>{passages}{relation}</document>"
        )))
    };
    let found = document(
        &(passage(0, "Aspirin", FIRST_TWO) + &passage(30, "Heparin", FIRST_TWO)),
        "",
    );
    assert_eq!(found.problems, [""; 0]);
    assert_eq!(found.labels(), [Some(1), Some(0), Some(1), Some(0)]);
    // One of the document may mean either.
    let found = document(&(passage(0, "Aspirin", "") + &passage(30, "Heparin", "")), FIRST_TWO);
    assert_eq!(found.reasons, ["dangling_relation"]);
    assert!(found.problems[0].contains("several"), "{:?}", found.problems);
    assert_eq!(found.labels(), [None; 4]);
}

#[test]
fn identifiers_may_begin_anew_in_each_sentence() {
    let text = |drug: &str| format!("{drug} gave rash, fever. ");
    let sentence = |offset: u64, drug: &str, has_text: bool| {
        let text = if has_text {
            format!("<text>{}</text>", text(drug))
        } else {
            String::new()
        };
        let annotations = of_drug(drug, offset);
        format!("<sentence><offset>{offset}</offset>{text}{annotations}{FIRST_TWO}</sentence>")
    };
    for in_sentences in [true, false] {
        let whole = format!("<text>{}{}</text>", text("Aspirin"), text("Heparin"));
        let found = bioc(collection(&format!(
            "<document><id>1</id><passage><offset>0</offset>{}{}{}</passage></document>",
            if in_sentences { "" } else { &whole },
            sentence(0, "Aspirin", in_sentences),
            sentence(26, "Heparin", in_sentences),
        )));
        assert_eq!(found.problems, [""; 0], "{in_sentences}");
        assert_eq!(found.labels(), [Some(1), Some(0), Some(1), Some(0)], "{in_sentences}");
    }
}

#[test]
fn a_relation_to_a_part_of_a_composite_mention_is_one_to_the_whole() {
    let role = |annotation: String, id: &str, role: &str| {
        annotation
            .replace("id='Disease'", &format!("id='{id}'"))
            .replace("<text>", &format!("<infon key=\"CompositeRole\">{role}</infon><text>"))
    };
    let part = annotation("Disease", "D2", "liver damage", "109+5 125+6");
    let annotations = annotation("Chemical", "D1", "X", "100+1")
        + &role(
            annotation("Disease", "", "liver and renal damage", "109+22"),
            "W",
            "CompositeMention",
        )
        + &role(part, "P", "IndividualMention");
    for ends in [
        "<node refid='Chemical'/><node refid='P'/>",
        "<infon key='entity1'>D1</infon><infon key='entity2'>D2</infon>",
    ] {
        let relation = format!("<relation id='R'><infon key='type'>CID</infon>{ends}</relation>");
        let found = bioc(collection(&xml(
            "1",
            "X caused liver and renal damage.",
            &annotations,
            &relation,
        )));
        assert_eq!(found.problems, [""; 0], "{ends}");
        assert_eq!(
            (found.ids(), found.labels()),
            (vec!["1:100-101:109-131"], vec![Some(1)]),
            "{ends}"
        );
        assert_eq!(found.records[0]["adr_concepts"], serde_json::json!(["D2"]));
    }
}

#[test]
fn one_sentence_is_one_sentence_too() {
    let annotations = annotation("Chemical", "D1", "Aspirin", "0+7") + &annotation("Disease", "D2", "rash", "21+4");
    let text = collection(&format!(
        "<document><id>1</id><passage><offset>0</offset><sentence><offset>0</offset><text>Aspirin was given. A rash came.\
         </text>{annotations}</sentence></passage></document>"
    ));
    assert_eq!(bioc(text).ids(), ["1:0-7:21-25"]);
}

#[test]
fn a_relation_of_thousands_of_ends_is_one_problem() {
    let node = "<node refid='Chemical'/><node refid='Disease'/>".repeat(5000);
    let relation = format!("<relation id='R'><infon key='type'>CID</infon>{node}</relation>");
    let annotations = annotation("Chemical", "D1", "Aspirin", "100+7") + &annotation("Disease", "D2", "rash", "115+4");
    let found = bioc(collection(&xml("1", "Aspirin caused rash.", &annotations, &relation)));
    assert_eq!(found.reasons, ["dangling_relation"]);
}

#[test]
fn relations_of_several_ends_have_a_limit_in_a_document() {
    let node = "<node refid='Chemical'/><node refid='Disease'/>".repeat(8);
    let relation = format!("<relation id='R'><infon key='type'>CID</infon>{node}</relation>");
    let annotations = annotation("Chemical", "D1", "Aspirin", "100+7") + &annotation("Disease", "D2", "rash", "115+4");
    // Of 16 ends are 120 pairs.
    let of = |count: usize| {
        bioc(collection(&xml(
            "1",
            "Aspirin caused rash.",
            &annotations,
            &relation.repeat(count),
        )))
    };
    assert_eq!(of(8333).problems, [""; 0]);
    let found = of(8335);
    assert_eq!(found.reasons, ["dangling_relation"; 2]);
    assert!(
        found.problems[0].contains("at most 1000000 pairs of what more than two nodes relate"),
        "{:?}",
        found.problems
    );
    assert_eq!(found.labels(), [Some(1)]);
}

#[test]
fn words_in_marked_up_text_are_kept() {
    let annotations =
        annotation("Chemical", "D1", "Aspirin", "100+7") + &annotation("Disease", "D2", "r<i>as</i>h", "109+4");
    let found = bioc(collection(&xml(
        "1",
        "Aspirin, rash: <i>not <b>yet</b></i> seen.",
        &annotations,
        "",
    )));
    assert_eq!(found.problems, [""; 0]);
    assert_eq!(found.records[0]["text"], "Aspirin, rash: not yet seen.");
}

#[test]
fn places_that_are_no_numbers_are_called_so() {
    for location in ["-1+7", "x+7", ""] {
        let annotations = annotation("Chemical", "D1", "Aspirin", location);
        let found = bioc(collection(&xml("1", "Aspirin caused rash.", &annotations, "")));
        assert_eq!(found.reasons.len(), 1, "{location}");
        assert!(!found.problems[0].contains("18446744073709551"), "{:?}", found.problems);
    }
}

#[test]
fn a_torn_first_line_costs_itself_alone() {
    let line = JSON.replace('\n', " ");
    for cut in [40, 60, 150, line.len() - 1] {
        let torn = &line[..line.floor_char_boundary(cut)];
        let found = bioc(format!("{torn}\n{line}\n{line}\n"));
        assert_eq!(found.reasons, ["malformed_document"], "{torn}");
        assert_eq!(found.records.len(), 2, "{torn}");
    }
    // Also where a document could follow in JSON.
    for torn in ["{\"id\": 7,", "{\"passages\": [", "{\"id\":", "{"] {
        let found = bioc(format!("{torn}\n{line}\n{line}\n"));
        assert_eq!((found.reasons.len(), found.records.len()), (1, 2), "{torn}");
    }
}

#[test]
fn sentences_are_as_far_apart_as_their_offsets_say() {
    for (gap, second) in [("", 15), (" ", 16), ("  ", 17)] {
        let sentence = |offset: u64, text: &str, annotations: &str| {
            format!("<sentence><offset>{offset}</offset><text>{text}</text>{annotations}</sentence>")
        };
        let adr = annotation("Disease", "D2", "rash", &format!("{}+4", second + 4));
        let drug = annotation("Chemical", "D1", "X", "0+1");
        let passage = sentence(0, "X was given. So", &drug) + &sentence(second, "... rash.", &adr);
        let text = collection(&format!(
            "<document><id>1</id><passage><offset>0</offset>{passage}</passage></document>"
        ));
        let options = Options {
            scope: crate::corpora::Scope::Passage,
            ..Options::default()
        };
        let found = extract_with(Format::Bioc, text, &options).unwrap();
        assert_eq!(found.problems, [""; 0]);
        assert_eq!(found.ids(), [format!("1:0-1:{}-{}", second + 4, second + 8)]);
        assert_eq!(found.records[0]["text"], format!("X was given. So{gap}... rash."));
    }
}

#[test]
fn json_says_nothing_by_null_and_several_things_by_an_array() {
    let text = JSON
        .replace("\"MESH:D1\"", "[\"MESH:D1\", {\"identifier\": \"MESH:D9\"}, [7]]")
        .replace("\"id\": \"1\"", "\"id\": 123456789012345678901234567890")
        .replace(
            "\"relations\": [",
            "\"relations\": null, \"annotations\": null, \"other\": [",
        );
    let found = bioc(text.as_str());
    assert_eq!(found.problems, [""; 0], "{text}");
    assert_eq!(found.records[0]["doc_id"], "123456789012345678901234567890");
    assert_eq!(
        found.records[0]["drug_concepts"],
        serde_json::json!(["MESH:D1", "MESH:D9", "7"])
    );
    let deep = JSON.replace(
        "\"MESH:D1\"",
        &format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)),
    );
    assert_eq!(bioc(deep).records[0]["drug_concepts"], serde_json::json!([]));
}

/// Four mentions and relations, as JSON: of the drugs and reactions `1` and `2`, `3` and `4`.
fn with_relations(relations: &str) -> Extracted {
    let mentions = [
        ("1", "Chemical", "aspirin", 0),
        ("2", "Disease", "rash", 13),
        ("3", "Chemical", "warfarin", 19),
        ("4", "Disease", "bleed", 33),
    ];
    let annotations = mentions.map(|(id, kind, text, offset)| {
        serde_json::json!({"id": id, "infons": {"type": kind}, "text": text, "locations": [{"offset": offset, "length": text.len()}]})
    });
    let relations: serde_json::Value = serde_json::from_str(relations).unwrap();
    let passage =
        serde_json::json!({"offset": 0, "text": "aspirin gave rash; warfarin gave bleed", "annotations": annotations});
    bioc(serde_json::json!({"id": "1", "passages": [passage], "relations": relations}).to_string())
}

#[test]
fn a_relation_of_which_it_is_not_known_what_it_relates_leaves_no_pair_unrelated() {
    let of_warfarin = r#"{"infons":{"type":"CID"},"nodes":[{"refid":"3"},{"refid":"4"}]}"#;
    let labels = |other: &str| {
        let found = with_relations(&format!("[{of_warfarin}{other}]"));
        let labels = found.labels();
        (labels[0], labels[3], found.reasons)
    };
    assert_eq!(labels(""), (Some(0), Some(1), vec![]));
    // Relations need not have identifiers.
    for nodes in [r#"{"ref":"1"},{"ref":"2"}"#, r#"{"refid":null},{"refid":""}"#] {
        let dangling = format!(r#",{{"infons":{{"type":"CID"}},"nodes":[{nodes}]}}"#);
        assert_eq!(labels(&dangling), (None, Some(1), vec!["dangling_relation"]), "{nodes}");
    }
    let of_relations = r#",{"id":"R1","infons":{"type":"cause"},"nodes":[{"refid":"1"},{"refid":"R2"}]},
        {"id":"R2","infons":{"type":"ADE"},"nodes":[{"refid":"2","role":"trigger"}]}"#;
    assert_eq!(labels(of_relations), (None, Some(1), vec![]));
    let of_another_type = of_relations.replace("cause", "Negation");
    assert_eq!(labels(&of_another_type), (Some(0), Some(1), vec![]));
}

#[test]
fn collections_may_have_prefixes_of_their_own() {
    let annotations = annotation("Chemical", "D1", "a", "0+1") + &annotation("Disease", "D2", "b", "2+1");
    let plain = collection(&format!(
        "<document><id>1</id><passage><offset>0</offset><text>a b</text>{annotations}</passage></document>"
    ));
    let prefixed = plain
        .replace("<id>1", "<id>2")
        .replace("<collection", "<bioc:collection")
        .replace("</collection", "</bioc:collection")
        .replace("<document", "<bioc:document")
        .replace("</document", "</bioc:document");
    for both in [plain.clone() + &prefixed, prefixed + &plain] {
        let found = bioc(both);
        assert_eq!(
            (found.summary.documents, found.records.len()),
            (2, 2),
            "{:?}",
            found.problems
        );
    }
}
