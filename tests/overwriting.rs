//! What lies where a run would write: it stays, unless it is the run's own or `--force` says so.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::common::place::{Place, documents, pairs, wait_for};
use crate::common::signals::{heed_signals, send};
use crate::common::{crag, fixture, json_lines, process};

/// The binary in the place, for other commands than `score`.
fn command(place: &Place, arguments: &[&str]) -> Command {
    let mut command = process(&crag());
    command.args(arguments).current_dir(place.path(""));
    command
}

fn run(place: &Place, arguments: &[&str]) -> Output {
    command(place, arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_manifest_replaces_nothing_but_a_manifest() {
    let place = Place::with_pairs(3);
    let beside = "out.jsonl.manifest.json";
    for (name, arguments) in [
        (
            "notes.json",
            &["-o", "out.jsonl", "--manifest", "notes.json", "pairs.jsonl"][..],
        ),
        (beside, &["-o", "out.jsonl", "pairs.jsonl"]),
    ] {
        place.write(name, "{\"my\": \"notes\"}\n");
        let message = place.refusal(arguments, 2);
        assert!(
            message.contains(name) && message.contains("holds what no earlier run wrote there"),
            "{message}"
        );
        assert_eq!(place.read(name), b"{\"my\": \"notes\"}\n");
        assert!(place.outputs().is_empty(), "{:?}", place.outputs());
        // An empty file holds nothing, and what a run wrote there is the next one's to replace.
        place.write(name, "");
        for _ in 0..2 {
            let run = place.score(&[arguments, &["--force"]].concat());
            assert_eq!(run.code, 0, "{}", run.stderr);
        }
        fs::remove_file(place.path("out.jsonl")).unwrap();
        fs::remove_file(place.path(name)).unwrap();
    }
}

#[test]
fn nothing_is_written_over_the_settings_or_the_model_that_a_run_reads() {
    let place = Place::with_pairs(3);
    place.write("notes.toml", "[score]\nthreshold = 0.6\n");
    fs::create_dir(place.path("model")).unwrap();
    for entry in fs::read_dir(fixture("model/mean")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), place.path("model").join(entry.file_name())).unwrap();
    }
    let files = ["notes.toml", "model/vocab.txt", "model/model.safetensors"];
    let before = files.map(|name| place.read(name));
    let with_config = |arguments: &[&str], by_variable: bool| {
        let mut command = place.command_with("model", arguments);
        match by_variable {
            true => command.env("CRAG_CONFIG", "notes.toml"),
            false => command.args(["--config", "notes.toml"]),
        };
        command.arg("pairs.jsonl").output().unwrap()
    };
    for name in files {
        for arguments in [
            &["-o", name, "--force"][..],
            &["-o", "out.jsonl", "--manifest", name],
            &["--manifest", name],
            &["--summary-json", name],
        ] {
            for by_variable in [false, true] {
                let refused = with_config(arguments, by_variable);
                assert_eq!(refused.status.code(), Some(2), "{arguments:?}: {}", said(&refused));
                let expected = format!("{name} is read by this run; name another file");
                assert!(said(&refused).contains(&expected), "{}", said(&refused));
            }
        }
    }
    assert!(files.map(|name| place.read(name)) == before);
    assert_eq!(place.outputs(), [""; 0]);
    let done = with_config(&["-o", "out.jsonl"], false);
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
}

#[test]
fn merge_and_extract_write_nothing_over_the_settings_that_they_read() {
    let place = Place::with_pairs(0);
    let settings = "[merge]\nformat = 'jsonl'\n[extract]\nscope = 'sentence'\n";
    place.write("notes.toml", settings);
    place.write("part.jsonl", "");
    place.write("doc.txt", "1|t|Title\n1|a|Abstract\n");
    for arguments in [
        &["merge", "part.jsonl"][..],
        &["extract", "--from", "pubtator", "doc.txt"],
    ] {
        let output = ["--force", "-o", "notes.toml", "--config", "notes.toml"];
        let refused = run(&place, &[arguments, &output].concat());
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}: {}", said(&refused));
        assert!(said(&refused).contains("is also an input"), "{}", said(&refused));
        assert_eq!(place.read("notes.toml"), settings.as_bytes());
    }
}

#[test]
fn a_state_that_no_run_of_this_version_wrote_stays_unless_forced() {
    let place = Place::with_pairs(3);
    let numbers: String = (1..1000).map(|number| format!("{number}\n")).collect();
    for (state, expected) in [
        (numbers.as_str(), "found something else"),
        ("[1]", "it names no format"),
        (r#"{"format":99,"answers":["many"]}"#, "format 99, this is format"),
    ] {
        place.write("out.jsonl.progress", state);
        let message = place.refusal(&["-o", "out.jsonl", "pairs.jsonl"], 2);
        assert!(
            message.contains("out.jsonl.progress: ") && message.contains(expected) && message.contains("--force"),
            "{message}"
        );
        assert_eq!(place.read("out.jsonl.progress"), state.as_bytes());
        assert_eq!(place.outputs(), ["out.jsonl.progress"]);
        let run = place.score(&["-o", "out.jsonl", "--force", "pairs.jsonl"]);
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert_eq!(place.outputs(), ["out.jsonl"]);
        fs::remove_file(place.path("out.jsonl")).unwrap();
    }
}

#[test]
fn an_output_that_appears_during_a_run_stays() {
    let place = Place::with_pairs(3);
    let expected = place.score(&["pairs.jsonl"]).stdout;
    // How the run ends during which the output appears.
    let end = |arguments: &[&str]| {
        let mut command = place.command(&[&["-q", "-o", "out.jsonl"], arguments].concat());
        command.stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        wait_for(|| place.exists("out.jsonl.progress"));
        place.write("out.jsonl", "precious\n");
        let stdin = child.stdin.take().unwrap().write_all(pairs(0..3).as_bytes());
        stdin.unwrap();
        child.wait_with_output().unwrap()
    };
    let refused = end(&[]);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    let message = said(&refused);
    let message = message.lines().last().unwrap();
    assert!(
        message.contains("out.jsonl: it has appeared since this run began")
            && message.contains("out.jsonl.partial: with")
            && message.contains("--force --resume it does so anyway"),
        "{message}"
    );
    assert_eq!(place.read("out.jsonl"), b"precious\n");
    assert!(place.read("out.jsonl.partial") == expected);
    assert!(!place.exists("out.jsonl.manifest.json"));
    // Both ways on do what the message says.
    let message = place.refusal(&["-o", "out.jsonl", "--resume", "pairs.jsonl"], 2);
    assert!(message.contains("with which --force --resume goes on"), "{message}");
    for (is_moved, arguments) in [(false, &["--force", "--resume"][..]), (true, &["--resume"])] {
        if is_moved {
            fs::remove_file(place.path("out.jsonl")).unwrap();
            assert_eq!(end(&[]).status.code(), Some(1));
            fs::rename(place.path("out.jsonl"), place.path("moved")).unwrap();
        }
        let run = place.score(&[&["-o", "out.jsonl", "pairs.jsonl"], arguments].concat());
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert!(place.read("out.jsonl") == expected);
        assert_eq!(place.outputs(), ["out.jsonl"]);
    }
    fs::remove_file(place.path("out.jsonl")).unwrap();
    let forced = end(&["--force"]);
    assert_eq!(forced.status.code(), Some(0), "{}", said(&forced));
    assert!(place.read("out.jsonl") == expected);
}

/// A run under way, `meanwhile`, and what came of it.
fn disturbed(place: &Place, arguments: &[&str], meanwhile: impl FnOnce()) -> Output {
    let mut command = place.command(&[&["-q", "-o", "out.jsonl"], arguments].concat());
    command.stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(pairs(0..2).as_bytes()).unwrap();
    // Both are answered, and on the disk.
    wait_for(|| place.exists("out.jsonl.partial") && place.read("out.jsonl.partial").ends_with(b"}\n"));
    wait_for(|| place.exists("out.jsonl.progress"));
    meanwhile();
    let _ = stdin.write_all(pairs(2..3).as_bytes());
    drop(stdin);
    child.wait_with_output().unwrap()
}

#[test]
fn what_another_program_puts_in_the_place_of_the_unfinished_output_never_becomes_the_output() {
    type Disturb = fn(&Place);
    let disturbances: [(&str, Disturb); 4] = [
        ("removed", |place| {
            fs::remove_file(place.path("out.jsonl.partial")).unwrap()
        }),
        ("replaced", |place| {
            fs::remove_file(place.path("out.jsonl.partial")).unwrap();
            place.write("out.jsonl.partial", "another's\n");
        }),
        ("emptied", |place| place.write("out.jsonl.partial", "")),
        ("longer", |place| {
            let mut file = fs::OpenOptions::new()
                .append(true)
                .open(place.path("out.jsonl.partial"))
                .unwrap();
            file.write_all(b"another's\n").unwrap();
        }),
    ];
    for (name, disturb) in disturbances {
        for arguments in [&[][..], &["--force"], &["--resume"]] {
            let place = Place::with_pairs(3);
            let output = disturbed(&place, arguments, || disturb(&place));
            let message = said(&output);
            assert_eq!(output.status.code(), Some(1), "{name}: {message}");
            assert!(
                message.contains("out.jsonl.partial is no longer what this run has written")
                    && !message.contains("is kept"),
                "{name}: {message}"
            );
            assert!(
                !place.exists("out.jsonl") && !place.exists("out.jsonl.manifest.json"),
                "{name}"
            );
            // The next run is well, whatever was left.
            let run = place.score(&["-o", "out.jsonl", "--force", "pairs.jsonl"]);
            assert_eq!(run.code, 0, "{name}: {}", run.stderr);
            assert!(place.read("out.jsonl") == place.score(&["pairs.jsonl"]).stdout);
        }
    }
}

#[test]
fn what_appears_in_the_manifests_place_during_a_run_stays() {
    let manifest = "out.jsonl.manifest.json";
    let appear: [fn(&Place, &str); 3] = [
        |place, name| place.write(name, "{\"my\": \"notes\"}"),
        |place, name| fs::create_dir(place.path(name)).unwrap(),
        // Nobody waits for who writes to it.
        |place, name| place.fifo(name),
    ];
    for appear in appear {
        let place = Place::with_pairs(3);
        let output = disturbed(&place, &["--force"], || appear(&place, manifest));
        let message = said(&output);
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(
            message.contains("out.jsonl.manifest.json: it has appeared since this run began")
                && !message.contains("is kept"),
            "{message}"
        );
        assert!(!place.exists("out.jsonl"));
        fs::rename(place.path(manifest), place.path("mine")).unwrap();
        let run = place.score_stdin(&["-o", "out.jsonl", "--resume"], &pairs(0..3));
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert!(place.read("out.jsonl") == place.score(&["pairs.jsonl"]).stdout && place.exists(manifest));
        assert_eq!(place.outputs(), ["out.jsonl"]);
    }
}

#[test]
fn with_force_a_finished_output_of_other_inputs_is_made_anew() {
    let place = Place::with_pairs(3);
    let make = ["-q", "-o", "out.jsonl", "--force", "--resume"];
    assert_eq!(place.score(&[&make[..], &["pairs.jsonl"]].concat()).code, 0);
    place.write("others.jsonl", pairs(5..9));
    for inputs in [
        &["others.jsonl"][..],
        &["pairs.jsonl", "others.jsonl"],
        &["pairs.jsonl"],
    ] {
        let message = place.refusal(&[&["-o", "out.jsonl", "--resume"], inputs].concat(), 2);
        assert!(message.contains("to start again"), "{message}");
        let run = place.score(&[&make[..], inputs].concat());
        assert_eq!(run.code, 0, "{inputs:?}: {}", run.stderr);
        assert!(place.read("out.jsonl") == place.score(inputs).stdout);
        assert_eq!(place.outputs(), ["out.jsonl"]);
    }
    // It has grown.
    place.write("pairs.jsonl", pairs(0..7));
    assert_eq!(place.score(&[&make[..], &["pairs.jsonl"]].concat()).code, 0);
    assert_eq!(json_lines(&place.read("out.jsonl")).len(), 7);
    // What has been read of a stream is gone.
    let run = place.score_stdin(&make, &pairs(1..3));
    assert_eq!(run.code, 2, "{}", run.stderr);
    assert_eq!(json_lines(&place.read("out.jsonl")).len(), 7);
}

#[test]
fn what_stands_in_for_an_output_is_for_its_readers_alone() {
    let place = Place::with_pairs(3);
    let mode = |name: &str| fs::metadata(place.path(name)).unwrap().permissions().mode() & 0o777;
    for old in [0o600, 0o400] {
        let _ = fs::remove_file(place.path("out.jsonl"));
        place.write("out.jsonl", "old");
        fs::set_permissions(place.path("out.jsonl"), fs::Permissions::from_mode(old)).unwrap();
        let mut command = place.command(&["-q", "-o", "out.jsonl", "--force", "--save-every", "0"]);
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(pairs(0..2).as_bytes()).unwrap();
        wait_for(|| fs::metadata(place.path("out.jsonl.partial")).is_ok_and(|partial| partial.len() > 0));
        assert_eq!((mode("out.jsonl.partial"), mode("out.jsonl.progress")), (0o600, 0o600));
        drop(stdin);
        assert_eq!(child.wait().unwrap().code(), Some(0));
        assert_eq!(mode("out.jsonl"), old);
    }
}

/// Makes `1.jsonl` to `COUNT.jsonl`, as as many shards deal a line for each.
fn shards(place: &Place, count: usize) -> Vec<String> {
    let shards = (1..=count).map(|number| format!("{number}.jsonl"));
    let shards: Vec<String> = shards.collect();
    for (i, shard) in shards.iter().enumerate() {
        place.write(shard, if i == 0 { "{\"id\":0}\n" } else { "" });
    }
    shards
}

#[test]
fn a_manifest_of_an_earlier_output_goes_with_it() {
    let place = Place::with_pairs(3);
    let beside = "out.jsonl.manifest.json";
    shards(&place, 2);
    let merge = ["merge", "1.jsonl", "2.jsonl", "-o", "out.jsonl", "--force"];
    for arguments in [
        &merge[..],
        &[
            "score",
            "--model",
            "demo",
            "-o",
            "out.jsonl",
            "--force",
            "--manifest",
            "m.json",
            "pairs.jsonl",
        ],
    ] {
        assert_eq!(place.score(&["-o", "out.jsonl", "--force", "pairs.jsonl"]).code, 0);
        assert!(place.exists(beside));
        let made = run(&place, arguments);
        assert_eq!(made.status.code(), Some(0), "{}", said(&made));
        assert!(!place.exists(beside), "{arguments:?}");
        assert!(said(&made).contains(&format!("{beside}: removed")), "{}", said(&made));
    }
    assert!(place.exists("m.json"));
    // Somebody's notes are no manifest.
    place.write(beside, "{}");
    assert_eq!(run(&place, &merge).status.code(), Some(0));
    assert_eq!(place.read(beside), b"{}");
}

#[test]
fn what_a_killed_merge_leaves_is_refused_with_what_works() {
    let place = Place::with_pairs(3);
    shards(&place, 2);
    let merge = ["merge", "1.jsonl", "2.jsonl", "-o", "out.jsonl"];
    place.write("out.jsonl.partial", "half of the");
    let refused = run(&place, &merge);
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(
        said(&refused).contains("nothing can go on with it, --force throws it away"),
        "{}",
        said(&refused)
    );
    assert!(!said(&refused).contains("--resume"), "{}", said(&refused));
    assert_eq!(place.read("out.jsonl.partial"), b"half of the");
    // Of a run that can be gone on with.
    place.write("out.jsonl.progress", "{}");
    let refused = run(&place, &merge);
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(
        said(&refused).contains("crag score --resume goes on with it"),
        "{}",
        said(&refused)
    );
    assert_eq!(place.outputs(), ["out.jsonl.partial", "out.jsonl.progress"]);
    let forced = run(&place, &[&merge[..], &["--force"]].concat());
    assert_eq!(forced.status.code(), Some(0), "{}", said(&forced));
    assert_eq!(place.outputs(), ["out.jsonl"]);
}

#[test]
fn a_signal_takes_what_an_extraction_has_written_away() {
    let place = Place::with_pairs(0);
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let mut extract = command(&place, &["extract", "-q", "--from", "pubtator", "-o", "out.jsonl"]);
        let mut child = heed_signals(&mut extract).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(documents(1..3000).as_bytes()).unwrap();
        wait_for(|| fs::metadata(place.path("out.jsonl.partial")).is_ok_and(|partial| partial.len() > 0));
        send(&child, signal);
        assert_eq!(child.wait().unwrap().code(), Some(code));
        assert_eq!(place.outputs(), [""; 0], "{signal}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn more_shards_than_may_be_open_are_merged_where_the_system_can_be_asked_for_more() {
    let place = Place::with_pairs(0);
    let shards = shards(&place, 120);
    let merge = |limits: &str| {
        let crag = process(&crag());
        let script = format!("{limits} && exec \"$0\" merge -o out.jsonl \"$@\"");
        let mut shell = Command::new("sh");
        shell.args(["-c", &script]).arg(crag.get_program()).args(&shards);
        shell.current_dir(place.path("")).output().unwrap()
    };
    let hard = merge("ulimit -n 60");
    assert_eq!(hard.status.code(), Some(1), "{}", said(&hard));
    assert!(said(&hard).contains("let it with `ulimit -n 152`"), "{}", said(&hard));
    assert_eq!(place.outputs(), [""; 0]);
    let soft = merge("ulimit -Sn 60");
    assert_eq!(soft.status.code(), Some(0), "{}", said(&soft));
    assert_eq!(place.read("out.jsonl"), b"{\"id\":0}\n");
}

#[test]
fn a_run_that_is_refused_by_the_lock_leaves_the_summary_to_the_run_that_holds_it() {
    let place = Place::with_pairs(3);
    let earlier = r#"{"run_id":"earlier","outcome":{"status":"complete"}}"#;
    place.write("s.json", earlier);
    let arguments = ["-q", "-o", "out.jsonl", "--summary-json", "s.json"];
    let mut first = place.command(&arguments);
    let mut first = first.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    wait_for(|| place.exists("out.jsonl.progress"));
    // What a kill of this one would leave is no earlier run's end.
    let running = place.read("s.json");
    let outcome = &serde_json::from_slice::<Value>(&running).unwrap()["outcome"];
    assert_eq!(
        (&outcome["status"], &outcome["exit_code"]),
        (&"running".into(), &Value::Null)
    );
    let second = place.score(&[&arguments[..], &["pairs.jsonl"]].concat());
    assert_eq!(second.code, 11, "{}", second.stderr);
    assert_eq!(place.read("s.json"), running);
    drop(first.stdin.take());
    assert_eq!(first.wait().unwrap().code(), Some(0));
    assert_ne!(place.read("s.json"), running);
}
