//! `crag extract` through the binary: the fixtures' documents and, where they are, the whole corpora.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use crate::common::run::Run;
use crate::common::{crag, fixture, json_lines, process};

fn extract(arguments: &[&str], files: &[PathBuf]) -> Run {
    let output = crag()
        .arg("extract")
        .args(arguments)
        .args(files)
        .output()
        .expect("the binary runs");
    Run::of(output)
}

fn sample(name: &str) -> PathBuf {
    fixture("corpora").join(name)
}

/// A file of the shared corpora, none (with a note) where they are not.
fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(name);
    if !path.exists() {
        println!("skipped: {} is not here", path.display());
        return None;
    }
    Some(path)
}

fn counts(arguments: &[&str], files: &[PathBuf]) -> (Run, Value) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("counts.json");
    let run = extract(
        &[arguments, &["--summary-json", path.to_str().unwrap()]].concat(),
        files,
    );
    let counts = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    (run, counts)
}

#[test]
fn pubtator_and_every_form_of_bioc_give_the_same_bytes() {
    let expected = std::fs::read(sample("sentence.jsonl")).unwrap();
    let run = extract(&["--from", "pubtator"], &[sample("sample.pubtator.txt")]);
    assert_eq!((run.code, &run.stdout), (0, &expected), "{}", run.stderr);
    for name in ["sample.bioc.xml", "sample.bioc.json", "sample.bioc.jsonl"] {
        let run = extract(&["--from", "bioc"], &[sample(name)]);
        assert_eq!((run.code, &run.stdout), (0, &expected), "{name}: {}", run.stderr);
    }
}

#[test]
fn offsets_in_any_unit_give_the_same_bytes() {
    let run = |unit: &str| {
        let run = extract(&["--from", "bioc"], &[sample(&format!("unicode.{unit}.bioc.json"))]);
        assert_eq!(run.code, 0, "{unit}: {}", run.stderr);
        assert_eq!(json_lines(&run.stdout).len(), 2);
        run.stdout
    };
    assert_eq!(run("code_point"), run("utf16"));
    assert_eq!(run("code_point"), run("byte"));
}

#[test]
fn what_is_extracted_can_be_scored() {
    for (format, name) in [
        ("pubtator", "sample.pubtator.txt"),
        ("ade-rel", "sample.rel"),
        ("brat", "brat"),
    ] {
        for scope in ["sentence", "passage", "document"] {
            let run = extract(&["--from", format, "--scope", scope], &[sample(name)]);
            assert_eq!(run.code, 0, "{}", run.stderr);
            let records = json_lines(&run.stdout);
            assert!(!records.is_empty());
            let scored = crag()
                .args(["score", "--model", "demo"])
                .write_stdin(run.stdout)
                .output()
                .unwrap();
            let answers = json_lines(&scored.stdout);
            assert_eq!(answers.len(), records.len());
            assert!(
                answers.iter().all(|answer| answer["probability"].is_f64()),
                "{name} {scope}"
            );
        }
    }
}

#[test]
fn problems_are_reported_with_their_line_and_exit_code_3() {
    let text = "1|t|Aspirin caused rash.\n1\t0\t7\tAspirin\tChemical\tD1\n1\t15\t19\trash\tDisease\tD2\n1\t0\t7\taspirin\tChemical\tD1\n";
    let run = |arguments: &[&str]| {
        crag()
            .args(["extract", "--from", "pubtator"])
            .args(arguments)
            .write_stdin(text)
            .output()
            .unwrap()
    };
    let output = run(&[]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(json_lines(&output.stdout).len(), 1);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("<stdin>:4: document \"1\": ") && stderr.contains("(text_mismatch)"),
        "{stderr}"
    );
    assert!(
        stderr.contains("1 document, 3 mentions (2 resolved), 0 relations, 1 pair,"),
        "{stderr}"
    );
    let strict = run(&["--strict"]);
    assert_eq!((strict.status.code(), strict.stdout.len()), (Some(1), 0));
    let silent = run(&["--max-reports", "0"]);
    assert_eq!(silent.status.code(), Some(3));
    assert!(!String::from_utf8(silent.stderr).unwrap().contains("<stdin>:4"));
}

#[test]
fn extract_writes_over_none_of_its_inputs() {
    let folder = tempfile::tempdir().unwrap();
    let corpus = folder.path().join("corpus.txt");
    std::fs::copy(sample("sample.pubtator.txt"), &corpus).unwrap();
    let before = std::fs::read(&corpus).unwrap();
    let run = extract(
        &["--from", "pubtator", "--summary-json", corpus.to_str().unwrap()],
        std::slice::from_ref(&corpus),
    );
    assert_eq!(run.code, 2, "{}", run.stderr);
    let notes = folder.path().join("notes");
    std::fs::create_dir(&notes).unwrap();
    std::fs::write(notes.join("x.txt"), "").unwrap();
    std::fs::write(notes.join("x.ann"), "").unwrap();
    let counts = notes.join("counts.txt");
    let next_document = extract(
        &["--from", "brat", "--summary-json", counts.to_str().unwrap()],
        std::slice::from_ref(&notes),
    );
    assert_eq!(next_document.code, 2, "{}", next_document.stderr);
    let next_document = extract(
        &["--from", "brat", "-o", counts.to_str().unwrap()],
        std::slice::from_ref(&notes),
    );
    assert_eq!(next_document.code, 2, "{}", next_document.stderr);
    let both = std::process::Command::new(env!("CARGO_BIN_EXE_crag"))
        .args(["extract", "--from", "pubtator", "--summary-json"])
        .arg(folder.path().join("out"))
        .arg(&corpus)
        .stdout(std::fs::File::create(folder.path().join("out")).unwrap())
        .output()
        .unwrap();
    assert_eq!(both.status.code(), Some(2), "{}", String::from_utf8_lossy(&both.stderr));
    let appended = std::process::Command::new(env!("CARGO_BIN_EXE_crag"))
        .args(["extract", "--from", "pubtator"])
        .arg(&corpus)
        .stdout(std::fs::OpenOptions::new().append(true).open(&corpus).unwrap())
        .output()
        .unwrap();
    assert_eq!(appended.status.code(), Some(2));
    assert_eq!(std::fs::read(&corpus).unwrap(), before);
}

#[test]
fn an_output_file_is_whole_or_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let expected = std::fs::read(sample("sentence.jsonl")).unwrap();
    let out = path("pairs.jsonl.gz");
    let with = ["--from", "pubtator", "-o", &out];
    let run = extract(&with, &[sample("sample.pubtator.txt")]);
    assert_eq!((run.code, run.stdout.len()), (0, 0), "{}", run.stderr);
    let mut read = Vec::new();
    let mut input = crag::files::Input::File(out.clone().into()).open().unwrap();
    std::io::Read::read_to_end(&mut input, &mut read).unwrap();
    assert!(read == expected && std::fs::read(&out).unwrap()[..2] == [0x1f, 0x8b]);
    let run = extract(&with, &[sample("sample.pubtator.txt")]);
    assert!(
        run.code == 2 && run.stderr.contains("--force replaces it"),
        "{}",
        run.stderr
    );
    // One that stops leaves the old one alone.
    let torn = path("torn.txt");
    std::fs::write(&torn, "1|t|Aspirin caused rash.\ngarbage\n").unwrap();
    let run = extract(&[&with[..], &["--force", "--strict"]].concat(), &[torn.clone().into()]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    assert!(std::fs::metadata(&out).unwrap().len() > 100);
    // One with problems is complete.
    assert_eq!(extract(&[&with[..], &["--force"]].concat(), &[torn.into()]).code, 3);
    for name in ["pairs.jsonl.gz", "pairs.jsonl.gz.partial"] {
        let summary = ["--force", "--summary-json", &path(name)];
        let run = extract(&[&with[..], &summary].concat(), &[sample("sample.pubtator.txt")]);
        assert!(
            run.code == 2 && run.stderr.contains("is a file of -o already"),
            "{}",
            run.stderr
        );
    }
    let mut names: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["pairs.jsonl.gz", "torn.txt"]);
}

#[test]
fn a_run_that_fails_does_not_leave_an_earlier_ones_counts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("counts.json");
    let with = ["--from", "pubtator", "--summary-json", path.to_str().unwrap()];
    let counts = || -> Value { serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap() };
    assert_eq!(extract(&with, &[sample("sample.pubtator.txt")]).code, 0);
    assert_eq!(counts()["outcome"]["status"], "complete");
    assert!(counts()["documents"].as_u64().unwrap() > 0);
    assert_eq!(extract(&with, &[folder.path().join("nothing.txt")]).code, 1);
    assert_eq!(counts()["outcome"]["status"], "failed");
    assert!(counts()["outcome"]["error"].as_str().unwrap().contains("nothing.txt"));
    assert!(counts().get("documents").is_none());
    // Each problem has its place for whoever reads JSON.
    let torn = folder.path().join("torn.txt");
    std::fs::write(&torn, "1|t|Aspirin caused rash.\ngarbage\n").unwrap();
    let run = extract(&["--from", "pubtator", "--log-format", "json"], &[torn]);
    let events = json_lines(run.stderr.as_bytes());
    assert_eq!(
        (&events[0]["event"], &events[0]["line"]),
        (&"problem".into(), &2.into())
    );
    assert_eq!(
        (&events[0]["reason"], &events[0]["document"]),
        (&"malformed_line".into(), &"1".into())
    );
    let last = events.last().unwrap();
    assert_eq!(
        (&last["event"], &last["problems"]["malformed_line"]),
        (&"summary".into(), &1.into())
    );
    // What is no summary stays.
    std::fs::write(&path, "mine").unwrap();
    assert_eq!(extract(&with, &[folder.path().join("nothing.txt")]).code, 1);
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    let refused = extract(&with, &[sample("sample.pubtator.txt")]);
    assert_eq!(
        (refused.code, refused.stdout.is_empty()),
        (2, true),
        "{}",
        refused.stderr
    );
    let said = "counts.json: holds what no earlier run wrote";
    assert!(refused.stderr.contains(said), "{}", refused.stderr);
    assert_eq!(std::fs::read(&path).unwrap(), b"mine");
}

#[test]
fn a_type_whose_mentions_do_not_resolve_is_there_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let corpus = folder.path().join("corpus.txt");
    let text = "1|t|Aspirin caused rash.\n1\t1\t8\tAspirin\tDrug\tD1\n1\t15\t19\trash\tADE\tD2\n";
    std::fs::write(&corpus, text).unwrap();
    let run = extract(&["--from", "pubtator"], &[corpus]);
    assert!(
        run.stderr.contains("text_mismatch") && !run.stderr.contains("choose with"),
        "{}",
        run.stderr
    );
}

#[test]
fn relations_without_a_type_are_said_and_none_of_those_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let corpus = folder.path().join("corpus.json");
    let annotation = |id: &str, kind: &str, text: &str, offset: u64| {
        serde_json::json!({"id": id, "infons": {"type": kind}, "text": text,
            "locations": [{"offset": offset, "length": text.len()}]})
    };
    let document = serde_json::json!({"id": "1", "passages": [{"offset": 0, "text": "Aspirin caused rash.",
        "annotations": [annotation("a", "Chemical", "Aspirin", 0), annotation("b", "Disease", "rash", 15)]}],
        "relations": [{"nodes": [{"refid": "a"}, {"refid": "b"}]}]});
    std::fs::write(&corpus, document.to_string()).unwrap();
    let label = |run: &Run| json_lines(&run.stdout)[0]["label"].clone();
    let run = extract(&["--from", "bioc"], std::slice::from_ref(&corpus));
    assert_eq!(label(&run), 1);
    assert!(run.stderr.contains("1 relation is of no type"), "{}", run.stderr);
    let chosen = extract(&["--from", "bioc", "--relation-type", "CID"], &[corpus]);
    assert_eq!(label(&chosen), 0);
}

#[test]
fn types_that_are_not_there_are_answered_with_those_that_are() {
    let run = extract(
        &["--from", "pubtator", "--drug-type", "Gene"],
        &[sample("sample.pubtator.txt")],
    );
    assert_eq!((run.code, run.stdout.len()), (0, 0));
    assert!(
        run.stderr.contains("Gene") && run.stderr.contains("\"Chemical\" (") && run.stderr.contains("--drug-type"),
        "{}",
        run.stderr
    );
    let both = extract(
        &["--from", "pubtator", "--drug-type", "disease"],
        &[sample("sample.pubtator.txt")],
    );
    assert_eq!(both.code, 2, "{}", both.stderr);
    let relation = extract(
        &["--from", "pubtator", "--relation-type", "x"],
        &[sample("sample.pubtator.txt")],
    );
    assert!(relation.stderr.contains("\"CID\" (5)"), "{}", relation.stderr);
}

#[test]
fn an_input_without_documents_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.xml");
    std::fs::write(&path, "<collection><doc><id>1</id></doc></collection>").unwrap();
    let run = extract(&["--from", "bioc"], &[path]);
    assert_eq!((run.code, run.stdout.len()), (0, 0));
    assert!(
        run.stderr.contains("found no document; expected <document>"),
        "{}",
        run.stderr
    );
}

#[test]
fn an_input_of_another_format_leaves_no_output() {
    let folder = tempfile::tempdir().unwrap();
    let [out, counts] = ["out.jsonl", "counts.json"].map(|name| folder.path().join(name));
    let (out_name, counts_name) = (out.to_str().unwrap(), counts.to_str().unwrap());
    for (format, name) in [
        ("bioc", "sample.pubtator.txt"),
        ("ade-rel", "sample.pubtator.txt"),
        ("pubtator", "sample.rel"),
        ("bioc", "sentence.jsonl"),
    ] {
        let arguments = ["--from", format, "-o", out_name, "--summary-json", counts_name];
        let run = extract(&arguments, &[sample(name)]);
        assert_eq!(run.code, 1, "{format} {name}: {}", run.stderr);
        assert!(run.stderr.contains("no document could be read"), "{}", run.stderr);
    }
    let left: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["counts.json"]);
    let counts: Value = serde_json::from_slice(&std::fs::read(counts).unwrap()).unwrap();
    assert_eq!(counts["outcome"]["exit_code"], 1, "{counts}");
    // Where another input has documents, they are there.
    let both = extract(
        &["--from", "bioc"],
        &[sample("sample.pubtator.txt"), sample("sample.bioc.xml")],
    );
    assert!(both.code == 3 && !both.stdout.is_empty(), "{}", both.stderr);
}

#[test]
fn what_a_corpus_is_like_is_not_said_each_night() {
    let said = |quiet: &[&str]| {
        extract(
            &[&["--from", "pubtator"], quiet].concat(),
            &[sample("sample.pubtator.txt")],
        )
        .stderr
    };
    assert!(said(&[]).contains("gave no pair"), "{}", said(&[]));
    assert!(!said(&["-q"]).contains("gave no pair"), "{}", said(&["-q"]));
}

#[test]
fn usage_and_missing_files_are_said_before_anything_is_written() {
    let missing = extract(
        &["--from", "pubtator"],
        &[sample("sample.pubtator.txt"), sample("missing")],
    );
    assert_eq!((missing.code, missing.stdout.len()), (1, 0), "{}", missing.stderr);
    assert_eq!(extract(&["--from", "bioc"], &[sample("brat")]).code, 1);
    assert_eq!(extract(&["--from", "brat"], &[]).code, 2);
    assert_eq!(extract(&["--from", "word"], &[]).code, 2);
    let folder = tempfile::tempdir().unwrap();
    let unwritable = folder.path().join("no/such/folder.json");
    let run = extract(
        &["--from", "pubtator", "--summary-json", unwritable.to_str().unwrap()],
        &[sample("sample.pubtator.txt")],
    );
    assert_eq!((run.code, run.stdout.len()), (1, 0), "{}", run.stderr);
}

#[test]
fn a_closed_pipe_ends_quietly_and_a_full_disk_does_not() {
    let text = std::fs::read(sample("sample.pubtator.txt")).unwrap().repeat(500);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let command = |stdout: Stdio| {
        let mut command = process(&crag());
        command
            .args(["extract", "--from", "pubtator"])
            .arg(file.path())
            .stdout(stdout)
            .stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let mut child = command(Stdio::piped());
    let mut start = [0; 1];
    child.stdout.take().unwrap().read_exact(&mut start).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(141), 0));
    if let Ok(full) = std::fs::OpenOptions::new().write(true).open("/dev/full") {
        let output = command(full.into()).wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn every_mention_of_bc5cdr_resolves_and_its_relations_arrive_as_labels() {
    let names = [
        "bc5cdr/CDR_TrainingSet.PubTator.txt",
        "bc5cdr/CDR_DevelopmentSet.PubTator.txt",
    ];
    let Some(files) = names.iter().map(|name| shared(name)).collect::<Option<Vec<_>>>() else {
        return;
    };
    let (run, counts) = counts(&["--from", "pubtator", "--scope", "document", "--window", "0"], &files);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(
        (&counts["documents"], &counts["mentions"]),
        (&1000.into(), &18976.into())
    );
    assert_eq!(counts["mentions_resolved"], counts["mentions"]);
    assert_eq!(counts["pairs_unlabelled"], 0);
    let mut arrived: HashSet<(String, String, String)> = HashSet::new();
    for record in json_lines(&run.stdout).iter().filter(|record| record["label"] == 1) {
        let list = |side: &str| {
            record[side]
                .as_array()
                .unwrap()
                .iter()
                .map(|id| id.as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        for drug in list("drug_concepts") {
            for adr in list("adr_concepts") {
                arrived.insert((record["doc_id"].as_str().unwrap().to_owned(), drug.clone(), adr));
            }
        }
    }
    let mut stated = 0;
    for file in &files {
        let text = std::fs::read_to_string(file).unwrap();
        for line in text.lines().filter(|line| line.contains("\tCID\t")) {
            let fields: Vec<String> = line.split('\t').map(str::to_owned).collect();
            stated += 1;
            assert!(
                arrived.contains(&(fields[0].clone(), fields[2].clone(), fields[3].clone())),
                "{line}"
            );
        }
    }
    assert_eq!(stated, 2050);
}

#[test]
fn pubtator_and_bioc_give_the_same_bytes_for_the_whole_development_set() {
    let Some(pubtator) = shared("bc5cdr/CDR_DevelopmentSet.PubTator.txt") else {
        return;
    };
    let Some(bioc) = shared("bc5cdr/CDR_DevelopmentSet.BioC.xml") else {
        return;
    };
    for scope in ["sentence", "passage"] {
        let one = extract(
            &["--from", "pubtator", "--scope", scope],
            std::slice::from_ref(&pubtator),
        );
        let other = extract(&["--from", "bioc", "--scope", scope], std::slice::from_ref(&bioc));
        assert_eq!((one.code, other.code), (0, 0), "{}{}", one.stderr, other.stderr);
        assert!(one.stdout.len() > 1_000_000);
        assert!(one.stdout == other.stdout, "{scope}: the two forms differ");
    }
    // What spans sentences is counted, and where it would be found is said.
    let (run, summary) = counts(&["--from", "pubtator"], &[pubtator]);
    assert_eq!(
        (&summary["relations"], &summary["relations_without_pair"]),
        (&1012.into(), &245.into())
    );
    assert!(
        run.stderr.contains("245 relations between") && run.stderr.contains("--scope passage"),
        "{}",
        run.stderr
    );
    // The one location in the corpus that does not hold is a part of a composite mention.
    let (run, counts) = counts(&["--from", "bioc", "--composite", "parts"], &[bioc]);
    assert_eq!(
        (run.code, &counts["mentions_unresolved"]),
        (3, &serde_json::json!({"text_mismatch": 1}))
    );
}

#[test]
fn a_pipe_named_like_a_document_is_reported_and_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["note.txt", "note.ann"] {
        std::fs::copy(sample("brat").join(name), folder.path().join(name)).unwrap();
    }
    let expected = extract(&["--from", "brat"], &[folder.path().to_owned()]);
    for (pipe, other) in [("pipe.txt", "pipe.ann"), ("x.ann", "x.txt")] {
        let made = std::process::Command::new("mkfifo")
            .arg(folder.path().join(pipe))
            .status();
        assert!(made.unwrap().success());
        std::fs::write(folder.path().join(other), "").unwrap();
    }
    let output = crag()
        .args(["extract", "--from", "brat"])
        .arg(folder.path())
        .timeout(std::time::Duration::from_secs(60))
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    for name in ["pipe.txt", "x.ann"] {
        let expected = format!(
            "{name}: document \"{}\": expected a file, found a pipe",
            &name[..name.len() - 4]
        );
        assert!(stderr.contains(&expected), "{stderr}");
    }
    assert!(output.stdout == expected.stdout && !output.stdout.is_empty());
}

/// Runs `--from ade-rel` over these lines.
fn ade_rel(lines: &[String], more: &[&str]) -> Run {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.rel");
    std::fs::write(&file, lines.concat()).unwrap();
    extract(&[&["--from", "ade-rel"], more].concat(), &[file])
}

#[test]
fn the_lines_of_a_pmid_are_one_document_wherever_they_stand() {
    let sentence = "Aspirin caused rash, ibuprofen fever.";
    let first = format!("9|{sentence}|rash|15|19|Aspirin|0|7\n");
    let second = format!("9|{sentence}|fever|31|36|ibuprofen|21|30\n");
    let other = "8|Lithium tremor.|tremor|8|14|Lithium|0|7\n".to_owned();
    let sorted = ade_rel(&[first.clone(), second.clone(), other.clone()], &[]);
    let apart = ade_rel(&[first, other, second], &[]);
    assert_eq!((sorted.code, apart.code), (0, 0), "{}", apart.stderr);
    assert_eq!(
        String::from_utf8(apart.stdout).unwrap(),
        String::from_utf8(sorted.stdout.clone()).unwrap()
    );
    let labels = json_lines(&sorted.stdout);
    let labels: Vec<_> = labels
        .iter()
        .map(|record| (record["id"].as_str().unwrap(), record["label"].as_u64().unwrap()))
        .collect();
    let expected = [
        ("9:0-7:15-19", 1),
        ("9:0-7:31-36", 0),
        ("9:21-30:15-19", 0),
        ("9:21-30:31-36", 1),
        ("8:0-7:8-14", 1),
    ];
    assert_eq!(labels, expected);
}

#[test]
fn doses_in_the_place_of_reactions_are_a_warning() {
    let dose = "1|Patient on aspirin 500 mg daily.|500 mg daily|19|31|aspirin|11|18\n".to_owned();
    let reaction = |pmid: u64| format!("{pmid}|Lithium tremor.|tremor|8|14|Lithium|0|7\n");
    let run = ade_rel(std::slice::from_ref(&dose), &[]);
    assert_eq!(run.code, 0);
    assert!(
        run.stderr.contains("in 1 of 1 pair the reaction begins with a digit") && run.stderr.contains("DRUG-AE.rel"),
        "{}",
        run.stderr
    );
    let run = ade_rel(&[dose, reaction(2)], &[]);
    assert!(!run.stderr.contains("digit"), "{}", run.stderr);
}

#[test]
fn ade_documents_and_files_that_are_too_large_are_reported_and_left_out() {
    // A sentence of 87 characters, and 13 of words.
    let sentence = format!("{:.<87}", "Lithium tremor");
    let line = |pmid: usize| format!("{pmid}|{sentence}|tremor|8|14|Lithium|0|7\n");
    let limit = ["--max-doc-bytes", "300"];
    // Its fourth line is too much, wherever it stands.
    let lines = [1, 2, 1, 1, 3, 1, 1].map(line);
    let run = ade_rel(&lines, &limit);
    let ids: Vec<_> = json_lines(&run.stdout)
        .iter()
        .map(|record| record["doc_id"].clone())
        .collect();
    assert_eq!((run.code, ids), (3, vec!["2".into(), "3".into()]), "{}", run.stderr);
    let reports: Vec<_> = run.stderr.lines().filter(|line| line.contains("(too_large)")).collect();
    assert_eq!(reports.len(), 1, "{}", run.stderr);
    assert!(
        reports[0].contains("x.rel:6: document \"1\": expected a document of at most 300 bytes"),
        "{reports:?}"
    );
    // Part of a file would be labelled as if the rest said nothing.
    let lines: Vec<_> = (0..100).map(line).collect();
    let run = ade_rel(&lines, &limit);
    assert_eq!((run.code, run.stdout.as_slice()), (3, &b""[..]), "{}", run.stderr);
    assert!(
        run.stderr.contains("at most 4800 bytes of memory") && run.stderr.contains("sort -s -t'|' -k1,1"),
        "{}",
        run.stderr
    );
    assert_eq!(json_lines(&ade_rel(&lines[..5], &limit).stdout).len(), 5);
}

#[test]
fn every_relation_of_the_ade_corpus_resolves() {
    let Some(file) = shared("ade-corpus-v2/DRUG-AE.rel") else {
        return;
    };
    let lines = std::fs::read_to_string(&file).unwrap();
    let sentences: HashSet<&str> = lines.lines().filter_map(|line| line.split('|').nth(1)).collect();
    let (run, counts) = counts(&["--from", "ade-rel"], std::slice::from_ref(&file));
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(
        (&counts["relations"], &counts["relations_unresolved"]),
        (&5826.into(), &0.into())
    );
    let records = json_lines(&run.stdout);
    let mut by_label: BTreeMap<Option<u64>, usize> = BTreeMap::new();
    // By the names in a text.
    let mut names: BTreeMap<[String; 3], BTreeSet<Option<u64>>> = BTreeMap::new();
    for record in &records {
        assert!(sentences.contains(record["text"].as_str().unwrap().trim()), "{record}");
        let label = record.get("label").map(|label| label.as_u64().unwrap());
        *by_label.entry(label).or_default() += 1;
        let name = |field: &str| record[field].as_str().unwrap().to_lowercase();
        names
            .entry(["text", "drug", "adr"].map(name))
            .or_default()
            .insert(label);
    }
    assert_eq!(by_label, BTreeMap::from([(None, 2), (Some(0), 51), (Some(1), 5925)]));
    assert!(
        names.values().all(|labels| labels.len() == 1),
        "a text says one thing of two names"
    );
    assert_eq!(
        (
            &counts["pairs_labelled_1_by_name"],
            &counts["labels_left_out"]["related_elsewhere"]
        ),
        (&99.into(), &2.into())
    );

    // In any order of its lines it says the same.
    let mut shuffled: Vec<String> = lines.lines().map(|line| format!("{line}\n")).collect();
    shuffled.sort_by_cached_key(|line| *blake3::hash(line.as_bytes()).as_bytes());
    let shuffled = ade_rel(&shuffled, &[]);
    assert_eq!(shuffled.code, 0, "{}", shuffled.stderr);
    let of_shuffled = json_lines(&shuffled.stdout);
    let set = |records: &[Value]| records.iter().map(Value::to_string).collect::<BTreeSet<_>>();
    assert_eq!(of_shuffled.len(), records.len());
    assert!(
        set(&of_shuffled) == set(&records),
        "other pairs or labels than in the sorted file"
    );
}

#[test]
fn relations_that_a_limit_left_without_a_pair_do_not_point_to_a_wider_scope() {
    let text = "aspirin and heparin caused bleeding and rash.";
    let annotation =
        |start: usize, word: &str, kind: &str| format!("1\t{start}\t{}\t{word}\t{kind}\t{word}\n", start + word.len());
    let document = format!(
        "1|t|\n1|a|{text}\n{}{}{}{}1\tCID\taspirin\tbleeding\n1\tCID\theparin\trash\n",
        annotation(1, "aspirin", "Chemical"),
        annotation(13, "heparin", "Chemical"),
        annotation(28, "bleeding", "Disease"),
        annotation(41, "rash", "Disease"),
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("document.txt");
    std::fs::write(&path, document).unwrap();
    let whole = extract(&["--from", "pubtator"], std::slice::from_ref(&path));
    assert!(!whole.stderr.contains("gave no pair"), "{}", whole.stderr);
    let limited = extract(&["--from", "pubtator", "--max-pairs-per-doc", "1"], &[path]);
    assert!(
        limited.stderr.contains(
            "1 relation between a drug and a reaction gave no pair, some of them since pairs beyond --max-pairs-per-doc"
        ) && !limited.stderr.contains("--scope"),
        "{}",
        limited.stderr
    );
}
