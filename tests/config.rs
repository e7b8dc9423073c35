//! Flags, environment and config file through the binary; the layers themselves are tested beside their code.

use std::path::Path;

use serde_json::{Value, json};

use crate::common::run::Run;
use crate::common::{crag, fixture, json_lines};

const PAIR: &str = r#"{"text":"aspirin bleeding","drug":"aspirin","adr":"bleeding"}"#;

/// `crag score` in `folder` on one pair.
fn score(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Run {
    let output = crag()
        .current_dir(folder)
        .arg("score")
        .args(arguments)
        .envs(variables.iter().copied())
        .write_stdin(PAIR)
        .output()
        .unwrap();
    Run::of(output)
}

/// Where the manifest of a run says that a setting came from, and its value.
fn setting(folder: &Path, name: &str) -> (Value, String) {
    let manifest: Value = serde_json::from_slice(&std::fs::read(folder.join("m.json")).unwrap()).unwrap();
    let rows = manifest["settings"].as_array().unwrap();
    let row = rows.iter().find(|row| row["setting"] == name).unwrap();
    (row["value"].clone(), row["from"].as_str().unwrap().to_owned())
}

#[test]
fn every_layer_reaches_the_answer_and_the_manifest_says_which() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(
        folder.join("x.toml"),
        "model = \"demo\"\n\n[score]\nthreshold = 0.999\nmanifest = \"m.json\"\n",
    )
    .unwrap();
    let causal = |run: &Run| json_lines(&run.stdout)[0]["causal"].clone();

    let run = score(folder, &["--config", "x.toml"], &[]);
    assert_eq!((run.code, causal(&run)), (0, json!(false)), "{}", run.stderr);
    assert_eq!(
        setting(folder, "threshold"),
        (json!("0.999"), "config x.toml:4".to_owned())
    );
    assert_eq!(
        setting(folder, "model"),
        (json!(["demo"]), "config x.toml:1".to_owned())
    );
    assert_eq!(setting(folder, "dtype"), (json!("f32"), "default".to_owned()));

    let run = score(folder, &[], &[("CRAG_CONFIG", "x.toml"), ("CRAG_THRESHOLD", "0.0")]);
    assert_eq!((run.code, causal(&run)), (0, json!(true)), "{}", run.stderr);
    assert_eq!(setting(folder, "threshold").1, "environment CRAG_THRESHOLD");

    let arguments = ["--config", "x.toml", "--threshold", "1"];
    let run = score(folder, &arguments, &[("CRAG_SCORE_THRESHOLD", "0.0")]);
    assert_eq!((run.code, causal(&run)), (0, json!(false)), "{}", run.stderr);
    assert_eq!(setting(folder, "threshold"), (json!("1"), "flag".to_owned()));
}

#[test]
fn nothing_is_read_from_the_working_folder_unless_it_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["crag.toml", ".crag.toml", "config.toml"] {
        std::fs::write(folder.path().join(name), "nonsense").unwrap();
    }
    let run = score(folder.path(), &["--model", "demo"], &[]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let run = score(folder.path(), &["--model", "demo", "--config", "crag.toml"], &[]);
    assert_eq!(run.code, 2);
    assert!(run.stderr.contains("crag: crag.toml:1: "), "{}", run.stderr);
}

#[test]
fn an_ensemble_can_stand_in_the_file_and_in_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let other = fixture("model/mean");
    let list = json!(["demo", other]).to_string();
    std::fs::write(folder.path().join("x.toml"), format!("[score]\nmodel = {list}\n")).unwrap();
    let by_file = score(folder.path(), &["--config", "x.toml"], &[]);
    let by_variable = score(folder.path(), &[], &[("CRAG_MODEL", &list)]);
    for run in [by_file, by_variable] {
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert_eq!(
            json_lines(&run.stdout)[0]["probabilities"].as_object().unwrap().len(),
            2
        );
    }
}

#[test]
fn mistakes_end_the_run_before_anything_is_read_and_name_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("x.toml"), "[score]\ntreshold = 0.5\n").unwrap();
    for (arguments, variables, expected) in [
        (
            ["--config", "x.toml"].as_slice(),
            [].as_slice(),
            "crag: x.toml:2: unknown key \"treshold\" in [score]; did you mean \"threshold\"?\n",
        ),
        (
            &["--config", "no.toml"],
            &[],
            "crag: no.toml: the config file cannot be read: ",
        ),
        (
            &["--config", "."],
            &[],
            "crag: .: expected a TOML file of settings, found a folder\n",
        ),
        (
            &[],
            &[("CRAG_THRESHOLD", "2")],
            "crag: CRAG_THRESHOLD: invalid value '2' for '--threshold <P>': expected a prob",
        ),
        (
            &[],
            &[("CRAG_WINDOW", "x")],
            "crag: CRAG_WINDOW: invalid value 'x' for '--window <PART>' [possible values: ",
        ),
        (
            &[],
            &[("CRAG_NO_REUSE", "perhaps")],
            "crag: CRAG_NO_REUSE: expected 1, true, yes or on, ",
        ),
    ] {
        let run = score(folder, arguments, variables);
        assert_eq!((run.code, run.stdout.len()), (2, 0), "{}", run.stderr);
        assert!(run.stderr.contains(expected), "{expected}: {}", run.stderr);
    }
    // The same for another subcommand, which has no such flag, is nothing.
    let output = crag()
        .current_dir(folder)
        .args(["inspect", "--model", "demo"])
        .env("CRAG_THRESHOLD", "2")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_variable_that_was_meant_for_a_flag_and_is_misspelt_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let others = [("CRAG_TEST_BINARY", "x"), ("CRAG_CUDA_LT", "1"), ("CRAG_KERNEL", "")];
    let said = |variables: &[(&str, &str)]| {
        let run = score(folder.path(), &["-q", "--model", "demo"], variables);
        assert_eq!(run.code, 0, "{}", run.stderr);
        run.stderr
            .lines()
            .filter(|line| line.contains("CRAG_"))
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert_eq!(
        said(&[&[("CRAG_TRESHOLD", "0.5")], &others[..]].concat()),
        "crag: the environment variable CRAG_TRESHOLD stands for no flag; did you mean CRAG_THRESHOLD?"
    );
    // Others may have variables that begin so.
    assert_eq!(said(&others), "");
}

#[test]
fn a_bad_config_file_stands_in_nobodys_way_to_help() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("x.toml"), "[scores]\nthreshold = 1\n").unwrap();
    let run = |arguments: &[&str]| {
        let mut command = crag();
        command
            .current_dir(&folder)
            .env("CRAG_CONFIG", "x.toml")
            .args(arguments);
        command.output().unwrap()
    };
    for arguments in [
        &["--help"][..],
        &["score", "--help"],
        &["--version"],
        &["completions", "bash"],
    ] {
        let output = run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && !output.stdout.is_empty() && stderr.is_empty(),
            "{stderr}"
        );
    }
    let output = run(&["check"]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        stderr,
        "crag: x.toml:1: unknown key \"scores\"; did you mean \"score\"?\n"
    );
}

#[test]
fn an_output_that_is_named_beneath_the_command_line_goes_with_its_flags_there() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("x.toml"), "[score]\noutput = \"of-config.jsonl\"\n").unwrap();
    let base = ["-q", "--model", "demo"];
    for flags in [
        &["--resume"][..],
        &["--force"],
        &["--save-every", "3", "--lock-timeout", "1", "--resume"],
    ] {
        let run = score(
            folder.path(),
            &[&base, flags].concat(),
            &[("CRAG_OUTPUT", "of-variable.jsonl")],
        );
        assert_eq!((run.code, run.stdout.len()), (0, 0), "{flags:?}: {}", run.stderr);
        let run = score(folder.path(), &[&base, flags, &["--config", "x.toml"]].concat(), &[]);
        assert_eq!((run.code, run.stdout.len()), (0, 0), "{flags:?}: {}", run.stderr);
        let run = score(folder.path(), &[&base, flags].concat(), &[]);
        assert!(
            run.code == 2 && run.stderr.contains("expected -o OUT as well"),
            "{flags:?}: {}",
            run.stderr
        );
    }
    for name in ["of-variable.jsonl", "of-config.jsonl"] {
        assert_eq!(json_lines(&std::fs::read(folder.path().join(name)).unwrap()).len(), 1);
    }
    for command in ["extract", "merge"] {
        let mut crag = crag();
        crag.args([command, "--force"]);
        if command == "extract" {
            crag.args(["--from", "pubtator"]);
        } else {
            crag.arg("x.toml");
        }
        let output = crag.current_dir(&folder).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(
            output.status.code() == Some(2) && stderr.contains("--force: expected -o OUT as well"),
            "{stderr}"
        );
    }
}

#[test]
fn of_quiet_and_verbose_the_one_nearer_to_the_command_line_counts() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("quiet.toml"), "[score]\nquiet = true\n").unwrap();
    std::fs::write(folder.path().join("verbose.toml"), "[score]\nverbose = true\n").unwrap();
    let is_verbose = |arguments: &[&str], variables: &[(&str, &str)]| {
        let run = score(
            folder.path(),
            &[&["--model", "demo", "--device", "cpu"], arguments].concat(),
            variables,
        );
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert_eq!(run.stderr.contains("device cpu"), run.stderr.contains("scored 1 of 1"));
        run.stderr.contains("device cpu")
    };
    assert!(is_verbose(&["-v"], &[("CRAG_QUIET", "1")]));
    assert!(is_verbose(&["-v", "--config", "quiet.toml"], &[]));
    assert!(is_verbose(&["--config", "quiet.toml"], &[("CRAG_VERBOSE", "1")]));
    assert!(!is_verbose(&["-q"], &[("CRAG_VERBOSE", "1")]));
    assert!(!is_verbose(&["--config", "verbose.toml"], &[("CRAG_QUIET", "1")]));
}

#[test]
fn a_variable_of_one_subcommand_holds_for_what_is_wrong_with_its_command_line_too() {
    let folder = tempfile::tempdir().unwrap();
    let run = score(folder.path(), &["--bogus"], &[("CRAG_SCORE_LOG_FORMAT", "json")]);
    assert_eq!(
        (run.code, json_lines(run.stderr.as_bytes()).len()),
        (2, 1),
        "{}",
        run.stderr
    );
    // And one that no environment may set is told under either name.
    for name in ["CRAG_FORCE", "CRAG_SCORE_FORCE"] {
        let run = score(folder.path(), &["-q", "--model", "demo"], &[(name, "1")]);
        assert!(
            run.stderr
                .contains(&format!("{name} stands for no flag: --force is for")),
            "{}",
            run.stderr
        );
    }
}
