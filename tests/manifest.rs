//! `--manifest` and `--summary-json`: what ran, without secrets.

use std::io::{Read as _, Write as _};
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::common::signals::{heed_signals, send};
use crate::common::{crag, demo_threshold, fixture};

const LINES: &str = concat!(
    r#"{"text":"aspirin bleeding","drug":"aspirin","adr":"bleeding"}"#,
    "\n\n{}\n",
    r#"{"text":"aspirin bleeding","drug":"aspirin","adr":"rash"}"#,
);

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_manifest_says_what_ran() {
    let folder = tempfile::tempdir().unwrap();
    let (manifest, summary) = (folder.path().join("m.json"), folder.path().join("s.json"));
    let other = fixture("model/mean");
    let output = crag()
        .args(["score", "--model", "demo", "--model"])
        .arg(&other)
        .args(["--missing-entity", "unmarked", "--threads", "2"])
        .args(["--device", "cpu", "--dtype", "int8"])
        .arg("--manifest")
        .arg(&manifest)
        .arg("--summary-json")
        .arg(&summary)
        .write_stdin(LINES)
        .output()
        .unwrap();
    assert_eq!(
        output.status.code(),
        Some(3),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let (manifest, summary) = (read(&manifest), read(&summary));

    assert_eq!(manifest["format"], 1);
    assert_eq!(manifest["tool"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(manifest["command"], "score");
    assert_eq!(manifest["arguments"][1], "score");
    assert_eq!(manifest["run_id"].as_str().unwrap().len(), 36);
    assert_eq!(
        (&manifest["run_id"], &manifest["outcome"]),
        (&summary["run_id"], &summary["outcome"])
    );
    assert_eq!(
        manifest["outcome"],
        json!({"status": "complete_with_errors", "exit_code": 3, "error": null})
    );
    assert_eq!(manifest["host"]["os"], std::env::consts::OS);
    assert_eq!(
        (&manifest["threads"], &manifest["precision"]),
        (&json!(2), &json!("int8"))
    );
    assert!(manifest["kernels"].as_str().unwrap().contains("int8"), "{manifest}");
    let times = ["started", "ended"].map(|key| manifest[key].as_str().unwrap().parse::<jiff::Timestamp>().unwrap());
    assert!(times[0] < times[1] && manifest["ended"].as_str().unwrap().ends_with('Z'));

    // The mean of both models' own, and no flag for it.
    let mean = (demo_threshold() + 0.55) / 2.0;
    assert_eq!(manifest["threshold"]["from"], "mean of the models' own");
    let found_mean = manifest["threshold"]["value"].as_f64().unwrap();
    assert!((found_mean - f64::from(mean)).abs() < 1e-6, "{found_mean}, {mean}");
    let setting = |name: &str| {
        let rows = manifest["settings"].as_array().unwrap();
        let row = rows.iter().find(|row| row["setting"] == name);
        row.map(|row| (row["value"].clone(), row["from"].as_str().unwrap().to_owned()))
    };
    assert_eq!(setting("missing-entity"), Some((json!("unmarked"), "flag".to_owned())));
    assert_eq!(setting("on-error"), Some((json!("record"), "default".to_owned())));
    assert_eq!(setting("no-reuse"), Some((json!(false), "default".to_owned())));
    assert_eq!(setting("threshold"), None);

    let models = manifest["models"].as_array().unwrap();
    assert_eq!(models.len(), 2);
    assert_eq!(models[1]["name"], json!(other));
    let weights = std::fs::read(other.join("model.safetensors")).unwrap();
    assert_eq!(
        models[1]["weights"],
        json!([{"name": other.join("model.safetensors"), "bytes": weights.len(), "sha256": sha256(&weights)}])
    );
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/checkpoint/demo/model.safetensors");
    assert_eq!(models[0]["weights"][0]["sha256"], sha256(&std::fs::read(demo).unwrap()));
    let files: Vec<&str> = models[1]["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["name"].as_str().unwrap())
        .collect();
    assert!(
        files.iter().any(|name| name.ends_with("crag.json")) && files.iter().any(|name| name.ends_with("vocab.txt"))
    );
    let own: Vec<&Value> = models[1]["settings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|s| s["setting"] == "pooling")
        .collect();
    assert_eq!(
        own,
        [&json!({"setting": "pooling", "value": "mean", "from": "crag.json"})]
    );

    for report in [&manifest, &summary] {
        let counts = &report["counts"];
        let number = |key: &str| counts[key].as_u64().unwrap();
        assert_eq!(
            ["records", "scored", "failed", "blank", "warned"].map(number),
            [3, 2, 1, 1, 1]
        );
        assert_eq!(counts["errors"]["missing_field"], 1);
        assert_eq!(counts["warnings"]["adr_not_found"], 1);
        assert_eq!(number("bytes"), LINES.len() as u64);
        assert!(number("tokens") > 0 && report["pairs_per_second"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn an_output_has_its_manifest_beside_it_with_the_hashes_of_what_was_read_and_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("a.jsonl"), LINES).unwrap();
    let score = |arguments: &[&str]| {
        crag()
            .current_dir(folder.path())
            .args(["score", "-m", "demo", "a.jsonl", "-o", "out.jsonl"])
            .args(arguments)
            .output()
            .unwrap()
    };
    let output = score(&["--summary-json", "s.json"]);
    assert_eq!(
        output.status.code(),
        Some(3),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let manifest = read(&path("out.jsonl.manifest.json"));
    let written = std::fs::read(path("out.jsonl")).unwrap();
    assert_eq!(
        manifest["inputs"],
        json!([{"name": "a.jsonl", "bytes": LINES.len(), "sha256": sha256(LINES.as_bytes())}])
    );
    assert_eq!(manifest["output"]["bytes"], written.len());
    assert_eq!(
        manifest["output"]["blake3"],
        blake3::hash(&written).to_hex().to_string()
    );
    assert_eq!(manifest["models"][0]["weights"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&manifest["counts"]["scored"], &manifest["outcome"]["exit_code"]),
        (&json!(1), &json!(3))
    );
    assert_eq!(read(&path("s.json"))["run_id"], manifest["run_id"]);
    // By it a later run sees that there is nothing left to do, and leaves it as it is.
    let again = score(&["--resume"]);
    let stderr = String::from_utf8_lossy(&again.stderr);
    assert!(stderr.contains("nothing to do, the output is complete"), "{stderr}");
    assert_eq!(read(&path("out.jsonl.manifest.json")), manifest);
    // Elsewhere, if it is said.
    let elsewhere = score(&["--force", "--manifest", "m.json"]);
    assert_eq!(elsewhere.status.code(), Some(3));
    assert_eq!(read(&path("m.json"))["inputs"], manifest["inputs"]);
    let again = score(&["--resume", "--manifest", "m.json"]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("nothing to do"));
    for (flag, name) in [
        ("--manifest", "out.jsonl"),
        ("--summary-json", "a.jsonl"),
        ("--manifest", "a.jsonl"),
    ] {
        assert_eq!(score(&["--force", flag, name]).status.code(), Some(2), "{flag} {name}");
    }
    assert_eq!(std::fs::read(path("a.jsonl")).unwrap(), LINES.as_bytes());
}

#[test]
fn no_secret_is_written_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    let (manifest, summary) = (folder.path().join("m.json"), folder.path().join("s.json"));
    let home = folder.path().join("home");
    std::fs::create_dir(&home).unwrap();
    let secrets = [
        "hf_AbCdEfGhIjKlMnOpQrSt",
        "pr0xy-passw0rd",
        "endp0int-pass",
        "aws-very-secret-value",
        "w0rd",
    ];
    let output = crag()
        .args(["score", "--model", "demo", "-v", "--output-key"])
        .arg(format!("https://user:{}@host/x", secrets[4]))
        .arg("--manifest")
        .arg(&manifest)
        .arg("--summary-json")
        .arg(&summary)
        .env("HF_TOKEN", secrets[0])
        .env("HF_HOME", &home)
        .env("HTTPS_PROXY", format!("http://me:{}@proxy:3128", secrets[1]))
        .env("https_proxy", format!("http://me:{}@proxy:3128", secrets[1]))
        .env("HF_ENDPOINT", format!("https://me:{}@hub.example", secrets[2]))
        .env("AWS_SECRET_ACCESS_KEY", secrets[3])
        // As when someone pastes it where it does not belong.
        .env("CRAG_KERNEL", "")
        .env("SLURM_JOB_ID", secrets[0])
        .env("HF_HUB_CACHE", folder.path().join(secrets[3]))
        .env_remove("CRAG_KERNEL")
        .write_stdin(LINES)
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    let manifest = std::fs::read_to_string(&manifest).unwrap();
    for (name, text) in [
        ("manifest", &manifest),
        ("summary", &std::fs::read_to_string(&summary).unwrap()),
        ("stderr", &stderr),
    ] {
        for secret in secrets {
            assert!(!text.contains(secret), "{secret} in the {name}: {text}");
        }
    }
    // The rest of what they stood in is still there.
    assert!(
        manifest.contains("https://***@hub.example") && manifest.contains("http://***@proxy:3128"),
        "{manifest}"
    );
    assert!(
        stderr.contains("--output-key is \"https://***@host/x\" (flag)"),
        "{stderr}"
    );
}

#[test]
fn a_run_that_fails_says_so_in_its_manifest_and_one_that_cannot_begin_leaves_none() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = folder.path().join("m.json");
    let score = |arguments: &[&str]| {
        crag()
            .args(["score", "--model", "demo", "--manifest", manifest.to_str().unwrap()])
            .args(arguments)
            .write_stdin(LINES)
            .output()
            .unwrap()
    };
    assert_eq!(score(&["--on-error", "fail"]).status.code(), Some(1));
    let written = read(&manifest);
    assert_eq!(
        (&written["outcome"]["status"], &written["outcome"]["exit_code"]),
        (&json!("failed"), &json!(1))
    );
    assert!(
        written["outcome"]["error"]
            .as_str()
            .unwrap()
            .contains("<stdin>:3: missing_field"),
        "{written}"
    );
    assert_eq!(written["counts"]["scored"], 1);
    std::fs::remove_file(&manifest).unwrap();
    assert_eq!(score(&["--model", "no/where"]).status.code(), Some(1));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    // Nothing that is read is written over.
    let input = folder.path().join("input.jsonl");
    std::fs::write(&input, LINES).unwrap();
    let input = input.to_str().unwrap();
    let output = crag()
        .args(["score", "-m", "demo", input, "--manifest", input])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(std::fs::read_to_string(input).unwrap(), LINES);
    // Found before anything is scored, whether the manifest comes with an output or without.
    let (out, nowhere) = (folder.path().join("out.jsonl"), folder.path().join("no/m.json"));
    let to_file = ["-o", out.to_str().unwrap()];
    for more in [&[][..], &to_file] {
        let output = crag()
            .args(["score", "--model", "demo", "--manifest", nowhere.to_str().unwrap()])
            .args(more)
            .write_stdin(LINES)
            .output()
            .unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains("crag: --manifest "), "{stderr}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "the input alone");
}

#[test]
fn a_report_goes_where_a_link_leads() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::os::unix::fs::symlink("real.json", path("link.json")).unwrap();
    for more in [&[][..], &["-o", "out.jsonl", "--force"]] {
        crag()
            .args(["score", "-q", "--model", "demo", "--manifest", "link.json"])
            .args(more)
            .current_dir(&folder)
            .write_stdin(LINES)
            .assert()
            .code(3);
        assert!(path("link.json").is_symlink());
        assert_eq!(read(&path("real.json"))["command"], "score");
        std::fs::remove_file(path("real.json")).unwrap();
    }
    // A pipe cannot be put in place, and reading it for an earlier run's manifest would wait for ever.
    let arguments = ["score", "--model", "demo", "-o", "other.jsonl", "--manifest", "-"];
    let output = crag().args(arguments).current_dir(&folder).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("expected the name of a file"));
    // Stdout may have the summary, where answers go elsewhere.
    let output = crag()
        .args([
            "score",
            "-q",
            "--model",
            "demo",
            "-o",
            "other.jsonl",
            "--summary-json",
            "-",
        ])
        .current_dir(&folder)
        .write_stdin(LINES)
        .output()
        .unwrap();
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["outcome"]["status"], "complete_with_errors");
    assert!(!path("-").exists());
}

#[test]
fn a_run_that_cannot_begin_leaves_no_earlier_summary_behind() {
    let folder = tempfile::tempdir().unwrap();
    let score = |arguments: &[&str]| {
        let mut command = crag();
        command.args(["score", "-q", "--model", "demo", "--summary-json", "s.json"]);
        let output = command.args(arguments).current_dir(&folder).write_stdin(LINES).output();
        output.unwrap().status.code()
    };
    assert_eq!(score(&[]), Some(3));
    let summary = folder.path().join("s.json");
    assert_eq!(read(&summary)["outcome"]["status"], "complete_with_errors");
    assert_eq!(score(&["missing.jsonl"]), Some(1));
    let written = read(&summary);
    assert_eq!(written["outcome"]["status"], "failed");
    assert!(written["outcome"]["error"].as_str().unwrap().contains("missing.jsonl"));
    assert_eq!(written["counts"]["records"], 0);
    // Also where the command line, the environment or the config file is what is wrong.
    std::fs::write(folder.path().join("x.toml"), "[score]\nthresold = 1\n").unwrap();
    for (arguments, told) in [
        (&["--threshold", "7"][..], "threshold"),
        (&["--bogus"], "--bogus"),
        (&["--format", "xml"], "xml"),
        (&["--resume"], "--resume: expected -o OUT as well"),
        (&["--config", "x.toml"], "thresold"),
    ] {
        assert_eq!(score(&[]), Some(3));
        assert_eq!(score(arguments), Some(2), "{arguments:?}");
        let written = read(&summary);
        assert_eq!(written["outcome"]["exit_code"], 2, "{arguments:?}");
        assert!(
            written["outcome"]["error"].as_str().unwrap().contains(told),
            "{written}"
        );
    }
    // Wherever it is said, also behind what is wrong.
    let said = "[score]\nsummary-json = \"s.json\"\nthreshold = 3\n";
    std::fs::write(folder.path().join("x.toml"), said).unwrap();
    for (arguments, variable) in [
        (&["--bogus", "--summary-json", "s.json"][..], ""),
        (&["--threshold", "7", "--summary-json=s.json"], ""),
        (&["--threshold", "x"], "s.json"),
        (&["--config", "x.toml"], ""),
        (&["--config", "x.toml", "--threshold", "5"], ""),
    ] {
        assert_eq!(score(&[]), Some(3));
        let mut command = crag();
        command.args(["score", "-q", "--model", "demo"]).args(arguments);
        command.env("CRAG_SUMMARY_JSON", variable).current_dir(&folder);
        assert_eq!(command.output().unwrap().status.code(), Some(2), "{arguments:?}");
        assert_eq!(read(&summary)["outcome"]["exit_code"], 2, "{arguments:?}");
    }
    std::fs::remove_file(folder.path().join("x.toml")).unwrap();
    // What is no summary may be anything.
    std::fs::write(&summary, LINES).unwrap();
    for arguments in [&["s.json"][..], &[]] {
        assert_eq!(score(arguments), Some(2), "{arguments:?}");
        assert_eq!(std::fs::read_to_string(&summary).unwrap(), LINES);
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn an_extraction_that_cannot_begin_or_that_a_signal_ends_leaves_no_earlier_summary_behind() {
    let folder = tempfile::tempdir().unwrap();
    let summary = folder.path().join("s.json");
    let extract = |arguments: &[&str]| {
        let mut command = crate::common::process(&crag());
        command.args(["extract", "--summary-json", "s.json"]).args(arguments);
        command.current_dir(&folder).stdin(std::process::Stdio::null());
        command
    };
    let earlier = r#"{"outcome":{"status":"complete"},"mentions_resolved":7}"#;
    std::fs::write(folder.path().join("x.toml"), "[extract]\nscoop = 'sentence'\n").unwrap();
    for (arguments, told) in [
        (&["--from", "pubtator", "--scope", "book"][..], "book"),
        (&["--from", "word"], "word"),
        (&[], "--from <FORMAT>"),
        (&["--from", "brat", "--config", "x.toml"], "scoop"),
    ] {
        std::fs::write(&summary, earlier).unwrap();
        assert_eq!(
            extract(arguments).output().unwrap().status.code(),
            Some(2),
            "{arguments:?}"
        );
        let written = read(&summary);
        assert_eq!(written["outcome"]["exit_code"], 2, "{arguments:?}");
        assert!(
            written["outcome"]["error"].as_str().unwrap().contains(told),
            "{written}"
        );
        assert_eq!(written["mentions_resolved"], Value::Null);
    }
    std::fs::write(&summary, earlier).unwrap();
    let mut command = extract(&["--from", "pubtator", "-o", "pairs.jsonl"]);
    command.stdin(std::process::Stdio::piped());
    let mut child = heed_signals(&mut command).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin
        .write_all(crate::common::place::documents(1..3000).as_bytes())
        .unwrap();
    let partial = folder.path().join("pairs.jsonl.partial");
    crate::common::place::wait_for(|| partial.metadata().is_ok_and(|partial| partial.len() > 0));
    // Closed, its input would be the end of the documents.
    send(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(143));
    drop(stdin);
    assert_eq!(read(&summary)["outcome"]["status"], "interrupted");
    assert_eq!(names(folder.path()), ["s.json", "x.toml"]);
}

#[test]
fn a_run_that_finds_the_output_taken_or_is_ended_while_it_waits_for_it_says_so_in_its_summary() {
    use std::process::Stdio;
    let folder = tempfile::tempdir().unwrap();
    let summary = folder.path().join("s.json");
    let score = |arguments: &[&str]| {
        let mut command = crate::common::process(&crag());
        command
            .args(["score", "-q", "--model", "demo", "-o", "out.jsonl"])
            .args(arguments);
        command.current_dir(&folder).stdin(Stdio::piped());
        command
    };
    let mut holder = score(&[]).spawn().unwrap();
    crate::common::place::wait_for(|| folder.path().join("out.jsonl.progress").exists());
    let earlier = || std::fs::write(&summary, r#"{"outcome":{"status":"complete"},"run_id":"x"}"#).unwrap();
    earlier();
    let locked = score(&["--force", "--summary-json", "s.json"]).status().unwrap();
    assert_eq!(locked.code(), Some(11));
    let outcome = |status: &str, code: i32| {
        let outcome = &read(&summary)["outcome"];
        assert_eq!(
            (&outcome["status"], &outcome["exit_code"]),
            (&json!(status), &json!(code))
        );
    };
    outcome("failed", 11);
    earlier();
    let mut waiting = score(&["--force", "--lock-timeout", "60", "--summary-json", "s.json"]);
    let mut waiting = heed_signals(&mut waiting).spawn().unwrap();
    let id = waiting.id();
    crate::common::place::wait_for(|| crate::common::signals::has_open(id, "out.jsonl.partial"));
    send(&waiting, "TERM");
    assert_eq!(waiting.wait().unwrap().code(), Some(143));
    outcome("interrupted", 143);
    drop(holder.stdin.take());
    assert_eq!(holder.wait().unwrap().code(), Some(0));
}

/// The names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_run_that_is_refused_leaves_nothing_under_a_name_that_it_reads_or_writes_answers_under() {
    for (arguments, code) in [
        (&["-o", "x", "--summary-json", "x.partial", "a.jsonl"][..], 2),
        (&["-o", "x", "--summary-json", "x.progress", "a.jsonl"], 2),
        (
            &["-o", "x", "--summary-json", "./folder/../x.progress.tmp", "a.jsonl"],
            2,
        ),
        (&["-o", "x", "--summary-json", "x", "a.jsonl"], 2),
        (&["-o", "link", "--summary-json", "x.partial", "a.jsonl"], 2),
        (&["-o", "x", "--summary-json", "x.manifest.json", "a.jsonl"], 2),
        (&["-o", "x", "--manifest", "m", "--summary-json", "m", "a.jsonl"], 2),
        (&["-o", "x", "--cache", "c", "--summary-json", "c", "a.jsonl"], 2),
        (&["-o", "x", "--summary-json", "b.jsonl", "a.jsonl", "b.jsonl"], 1),
        (&["-o", "x", "--model-config", "c", "--summary-json", "c", "a.jsonl"], 2),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        std::fs::write(path.join("a.jsonl"), LINES).unwrap();
        std::fs::create_dir(path.join("folder")).unwrap();
        std::os::unix::fs::symlink("x", path.join("link")).unwrap();
        let before = names(path);
        let score = |arguments: &[&str]| {
            let mut command = crag();
            command.args(["score", "-q", "--model", "demo"]).args(arguments);
            command.current_dir(path).output().unwrap()
        };
        let refused = score(arguments);
        let stderr = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(code), "{arguments:?}: {stderr}");
        assert_eq!(names(path), before, "{arguments:?}");
        let right = score(&["-o", "x", "a.jsonl"]);
        let stderr = String::from_utf8_lossy(&right.stderr);
        assert_eq!(right.status.code(), Some(3), "after {arguments:?}: {stderr}");
    }
}

#[test]
fn an_extraction_that_fails_makes_none_of_its_missing_inputs() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("notes")).unwrap();
    for (format, name, input) in [
        ("pubtator", "missing.txt", "./missing.txt"),
        ("brat", "notes/summary.txt", "notes"),
    ] {
        let mut command = crag();
        command.args(["extract", "--from", format, "--summary-json", name, input]);
        let output = command.current_dir(folder.path()).output().unwrap();
        assert!(!output.status.success());
        assert!(!folder.path().join(name).exists(), "{name}");
    }
}

#[test]
fn two_runs_that_write_one_report_both_end_well_and_touch_nothing_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    // What another run has not finished yet.
    std::fs::write(path.join("s.json.partial"), LINES).unwrap();
    std::fs::write(path.join("m.json.partial"), LINES).unwrap();
    let before = names(path);
    let begin = || {
        let mut command = std::process::Command::new(crag().get_program());
        command.args(["score", "-q", "--offline", "--model", "demo"]);
        command
            .args(["--summary-json", "s.json", "--manifest", "m.json"])
            .current_dir(path);
        let piped = std::process::Stdio::piped;
        let mut run = command.stdin(piped()).stdout(piped()).stderr(piped()).spawn().unwrap();
        let line = LINES.lines().next().unwrap();
        writeln!(run.stdin.as_mut().unwrap(), "{line}").unwrap();
        // Once it has answered, it has looked at where its reports go.
        let mut answer = [0; 1];
        run.stdout.as_mut().unwrap().read_exact(&mut answer).unwrap();
        run
    };
    let runs = [begin(), begin()];
    assert_eq!(names(path), before, "a run that is killed would leave it");
    for run in runs {
        let output = run.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{stderr}");
        for name in ["s.json", "m.json"] {
            assert_eq!(read(&path.join(name))["outcome"]["status"], "complete");
        }
    }
    assert_eq!(names(path), ["m.json", "m.json.partial", "s.json", "s.json.partial"]);
    for name in ["s.json.partial", "m.json.partial"] {
        assert_eq!(std::fs::read_to_string(path.join(name)).unwrap(), LINES, "{name}");
    }
}
