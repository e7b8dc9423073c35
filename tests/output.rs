//! `crag score -o OUT`: when it refuses, what it leaves, and what it says. On the built-in demo model.

use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};

use crag::files::Companion;
use serde_json::Value;

use crate::common::place::{Place, pair, pairs, wait_for};
use crate::common::signals::has_open;
use crate::common::{crag, json_lines, process};

#[test]
fn a_file_holds_what_stdout_would_and_nothing_else_is_left() {
    let place = Place::with_pairs(50);
    place.write("more.jsonl", "{}\n\nno object\n");
    let inputs = ["pairs.jsonl", "more.jsonl"];
    let printed = place.score(&inputs);
    assert_eq!(printed.code, 3);
    let run = place.score(&["-o", "out.jsonl", inputs[0], inputs[1]]);
    assert_eq!((run.code, run.stdout.len()), (3, 0), "{}", run.stderr);
    assert!(run.stderr.contains("crag: scored 50 of 52 lines in"), "{}", run.stderr);
    assert!(place.read("out.jsonl") == printed.stdout);
    assert_eq!(place.outputs(), ["out.jsonl"]);
}

#[test]
fn an_output_whose_name_says_another_format_is_a_warning() {
    let place = Place::with_pairs(2);
    place.write(
        "table.csv",
        "text,drug,adr\nAspirin caused bleeding.,Aspirin,bleeding\n",
    );
    for (name, input, said) in [
        (
            "out.csv",
            "pairs.jsonl",
            Some("out.csv: the name says csv, and the records in it are jsonl"),
        ),
        (
            "out.tsv.gz",
            "pairs.jsonl",
            Some("the name says tsv, and the records in it are jsonl"),
        ),
        (
            "out.jsonl",
            "table.csv",
            Some("the name says jsonl, and the records in it are csv"),
        ),
        (
            "out.jsonl.xz",
            "pairs.jsonl",
            Some("the name says xz, and the records in it are jsonl, not packed (what ends in .gz, .zst or .bz2 is)"),
        ),
        ("out.CSV", "table.csv", None),
        ("out.ndjson", "pairs.jsonl", None),
        ("out.txt", "table.csv", None),
    ] {
        let run = place.score(&["-o", name, input]);
        assert_eq!((run.code, place.exists(name)), (0, true), "{}", run.stderr);
        match said {
            Some(said) => assert!(run.stderr.contains(said), "{}", run.stderr),
            None => assert!(!run.stderr.contains("the name says"), "{}", run.stderr),
        }
    }
}

#[test]
fn an_input_of_which_nothing_can_be_scored_is_said_even_quietly() {
    let place = Place::with_pairs(2);
    place.write("corpus.txt", "12345|t|Rash after aspirin\n12345|a|\n");
    place.write("one.jsonl", "{}\n");
    let run = place.score(&["-q", "-o", "out.jsonl", "corpus.txt"]);
    assert_eq!(run.code, 3);
    let said = "none of the 2 lines could be scored (invalid_json 2)";
    assert!(run.stderr.contains(said), "{}", run.stderr);
    let answers = String::from_utf8(place.read("out.jsonl")).unwrap();
    assert!(answers.contains("crag extract --from pubtator"), "{answers}");
    // One bad record among others, or alone, is told by the exit code.
    for input in ["one.jsonl", "pairs.jsonl"] {
        let run = place.score(&["-q", input]);
        assert!(!run.stderr.contains("could be scored"), "{}", run.stderr);
    }
}

#[test]
fn an_existing_output_stays_without_force_and_until_the_new_one_is_complete() {
    let place = Place::with_pairs(3);
    place.write("out.jsonl", "old\n");
    let message = place.refusal(&["-o", "out.jsonl", "pairs.jsonl"], 2);
    assert!(message.contains("out.jsonl: the output exists; --force"), "{message}");
    assert_eq!(place.read("out.jsonl"), b"old\n");
    let message = place.refusal(&["-o", "out.jsonl", "--resume", "pairs.jsonl"], 2);
    assert!(message.contains("nothing says which run made it"), "{message}");
    // The run fails at its second line: the old one stays.
    place.write("bad.jsonl", pair(0) + "\n{}\n");
    let run = place.score(&["-o", "out.jsonl", "--force", "--on-error", "fail", "bad.jsonl"]);
    assert_eq!(run.code, 1, "{}", run.stderr);
    assert_eq!(place.read("out.jsonl"), b"old\n");
    let message = place.refusal(&["-o", "out.jsonl", "--resume", "bad.jsonl"], 2);
    assert!(message.contains("with which --force --resume goes on"), "{message}");
    let run = place.score(&["-o", "out.jsonl", "--force", "pairs.jsonl"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert_eq!(json_lines(&place.read("out.jsonl")).len(), 3);
    assert_eq!(place.outputs(), ["out.jsonl"]);
}

#[test]
fn an_output_that_is_an_input_under_any_name_is_refused() {
    let place = Place::with_pairs(3);
    let before = place.read("pairs.jsonl");
    fs::hard_link(place.path("pairs.jsonl"), place.path("hard.jsonl")).unwrap();
    std::os::unix::fs::symlink("pairs.jsonl", place.path("soft.jsonl")).unwrap();
    fs::hard_link(place.path("pairs.jsonl"), place.path("out.jsonl.partial")).unwrap();
    for output in ["pairs.jsonl", "./pairs.jsonl", "hard.jsonl", "soft.jsonl", "out.jsonl"] {
        let message = place.refusal(&["-o", output, "--force", "pairs.jsonl"], 2);
        assert!(message.contains("is also an input (pairs.jsonl)"), "{message}");
    }
    let mut command = place.command(&["-o", "hard.jsonl", "--force"]);
    command.stdin(fs::File::open(place.path("pairs.jsonl")).unwrap());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("(<stdin>)"));
    assert_eq!(place.read("pairs.jsonl"), before);
}

#[test]
fn an_unfinished_output_is_not_thrown_away_unasked() {
    let place = Place::with_pairs(3);
    place.write("bad.jsonl", pairs(0..2) + "{}\n");
    let arguments = ["-o", "out.jsonl", "--on-error", "fail", "bad.jsonl"];
    let message = place.refusal(&arguments, 1);
    assert!(
        message.contains("bad.jsonl:3") && message.contains("--resume goes on with the line mended"),
        "{message}"
    );
    let kept = place.read("out.jsonl.partial");
    assert_eq!(json_lines(&kept).len(), 2);
    let message = place.refusal(&arguments, 2);
    assert!(
        message.contains("--resume goes on with it, --force throws it away"),
        "{message}"
    );
    assert_eq!(place.read("out.jsonl.partial"), kept);
    // The bad line may become an error record now: the lines before it are answered the same.
    let run = place.score(&["-o", "out.jsonl", "--resume", "bad.jsonl"]);
    assert_eq!(run.code, 3, "{}", run.stderr);
    assert!(
        run.stderr.contains("scored 2 of 3 lines") && run.stderr.contains("2 of them by earlier runs"),
        "{}",
        run.stderr
    );
    assert!(place.read("out.jsonl") == place.score(&["bad.jsonl"]).stdout);
    assert_eq!(place.outputs(), ["out.jsonl"]);
    // With force an unfinished one goes.
    place.write("out2.jsonl.partial", "torn");
    assert_eq!(place.score(&["-o", "out2.jsonl", "--force", "pairs.jsonl"]).code, 0);
    assert_eq!(place.outputs(), ["out.jsonl", "out2.jsonl"]);
}

#[test]
fn answers_that_wait_for_their_archive_member_are_not_thrown_away_unasked() {
    let place = Place::with_pairs(0);
    let arguments = ["-o", "out.jsonl.gz", "--save-every", "0"];
    let mut killed = place.command(&[&["-q"], &arguments[..]].concat());
    let mut killed = killed.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    killed
        .stdin
        .as_mut()
        .unwrap()
        .write_all(pairs(0..9).as_bytes())
        .unwrap();
    wait_for(|| {
        fs::read_to_string(place.path("out.jsonl.gz.progress")).is_ok_and(|state| state.contains("\"lines\":9"))
    });
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(
        place.read("out.jsonl.gz.partial"),
        b"",
        "none of them is in the file yet"
    );
    let state = place.read("out.jsonl.gz.progress");
    let message = place.refusal(&arguments, 2);
    assert!(
        message.contains("out.jsonl.gz.progress unfinished; --resume goes on"),
        "{message}"
    );
    assert!(place.read("out.jsonl.gz.progress") == state);
    let run = place.score_stdin(&[&arguments[..], &["--force"]].concat(), &pairs(0..2));
    assert_eq!(run.code, 0, "{}", run.stderr);
}

#[test]
fn an_output_that_is_replaced_keeps_its_permissions() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::with_pairs(2);
    place.write("out.jsonl", "old");
    fs::set_permissions(place.path("out.jsonl"), fs::Permissions::from_mode(0o600)).unwrap();
    let run = place.score(&["-o", "out.jsonl", "--force", "pairs.jsonl"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let mode = fs::metadata(place.path("out.jsonl")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn an_input_is_not_written_to_by_redirection() {
    let place = Place::with_pairs(3);
    let appended = OpenOptions::new().append(true).open(place.path("pairs.jsonl")).unwrap();
    let mut command = place.command(&["pairs.jsonl"]);
    let output = command.stdout(appended).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(
        stderr.contains("<stdout>: the output is also an input (pairs.jsonl)"),
        "{stderr}"
    );
    assert_eq!(place.read("pairs.jsonl"), pairs(0..3).into_bytes());
}

#[test]
fn an_input_is_not_written_to_through_a_descriptor_or_stderr() {
    let place = Place::with_pairs(3);
    // Through a shell, which can open a third descriptor.
    let appending = |descriptor: u8, arguments: &[&str]| {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("exec \"$0\" \"$@\" {descriptor}>>pairs.jsonl")]);
        let program = crag().get_program().to_owned();
        shell.arg(program).args(["score", "-q", "--offline", "--model", "demo"]);
        shell.args(arguments).current_dir(place.path(""));
        shell.output().unwrap()
    };
    for arguments in [
        ["-o", "/dev/fd/3", "pairs.jsonl"],
        ["--summary-json", "/dev/fd/3", "pairs.jsonl"],
        ["--manifest", "/dev/fd/3", "pairs.jsonl"],
    ] {
        let output = appending(3, &arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(
            stderr.contains("/dev/fd/3: the output is also an input (pairs.jsonl)"),
            "{stderr}"
        );
        assert_eq!(place.read("pairs.jsonl"), pairs(0..3).into_bytes(), "{arguments:?}");
    }
    // What is wrong is said there, but no answer.
    assert_eq!(
        appending(2, &["-o", "/dev/stderr", "pairs.jsonl"]).status.code(),
        Some(2)
    );
    let left = String::from_utf8(place.read("pairs.jsonl")).unwrap();
    assert!(!left.contains("probability"), "{left}");
    // Of a device nothing comes back.
    let run = place.score(&["-o", "/dev/null", "/dev/null"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
}

#[test]
fn a_limit_on_the_size_of_files_ends_a_run_as_a_full_disk_does() {
    let place = Place::with_pairs(1000);
    // At most so many blocks of 512 or 1,024 bytes, as the shell counts; the answers are 150 kB.
    let limited_to = |blocks: usize, arguments: &[&str]| {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -f {blocks}; exec \"$0\" \"$@\"")]);
        shell.arg(crag().get_program()).args(arguments);
        let output = shell.current_dir(place.path("")).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        let code = output.status.code();
        (code.unwrap_or_else(|| panic!("{}: {stderr}", output.status)), stderr)
    };
    let score = ["score", "-q", "--offline", "--model", "demo"];
    let limited = |arguments: &[&str]| limited_to(64, &[&score, arguments].concat());
    let arguments = ["-o", "out.jsonl", "--resume", "pairs.jsonl"];
    let (code, stderr) = limited(&arguments);
    assert_eq!(code, 1, "{stderr}");
    assert!(
        stderr.contains("File too large") && stderr.contains("the same command with --resume goes on"),
        "{stderr}"
    );
    assert_eq!(place.score(&arguments).code, 0);
    assert!(place.read("out.jsonl") == place.score(&["pairs.jsonl"]).stdout);
    // Of what is written in one go nothing is left, though its first write is what failed.
    let (code, stderr) = limited_to(16, &["merge", "out.jsonl", "-o", "merged"]);
    assert_eq!(code, 1, "{stderr}");
    assert!(!place.exists("merged") && !place.exists("merged.partial"));
    // A cache that cannot be made is one line too.
    let (code, stderr) = limited(&["--cache", "cache", "pairs.jsonl"]);
    assert_eq!(code, 1, "{stderr}");
    assert!(
        stderr.contains("cache") && stderr.contains("File too large"),
        "{stderr}"
    );
}

#[test]
fn no_name_that_a_run_writes_under_is_an_input_or_another_of_its_files() {
    let place = Place::with_pairs(3);
    let manifest = Companion::beside(&place.path("out.jsonl.manifest.json"), &place.path("out.jsonl"));
    let manifest = manifest.file_name().unwrap().to_str().unwrap();
    for name in [manifest, "out.jsonl.progress.tmp"] {
        place.write(name, pairs(0..2));
        let arguments = ["-o", "out.jsonl", "--summary-json", "s.json", "--format", "jsonl", name];
        let message = place.refusal(&arguments, 2);
        assert!(message.contains(&format!("{name} is read by this run")), "{message}");
        assert_eq!(place.read(name), pairs(0..2).into_bytes());
    }
    for arguments in [
        ["-o", "out.jsonl", "--cache", "out.jsonl", "pairs.jsonl"],
        ["--cache", "x", "--summary-json", "x", "pairs.jsonl"],
        ["-o", "out.jsonl", "--manifest", "out.jsonl.progress", "pairs.jsonl"],
    ] {
        let message = place.refusal(&arguments, 2);
        assert!(message.contains(" already"), "{message}");
    }
    assert_eq!(place.outputs(), ["out.jsonl.progress.tmp"], "written above");
}

#[test]
fn runs_that_put_their_manifests_in_one_place_do_not_get_into_each_others_way() {
    let place = Place::with_pairs(3);
    let runs: Vec<_> = (0..8)
        .map(|i| {
            let mut command =
                place.command(&["--manifest", "run.json", "-o", &format!("out-{i}.jsonl"), "pairs.jsonl"]);
            command.stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for run in runs {
        let ended = run.wait_with_output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    }
    // The last one's, whole.
    let manifest: Value = serde_json::from_slice(&fs::read(place.path("run.json")).unwrap()).unwrap();
    let output = manifest["output"]["path"].as_str().unwrap();
    assert!(output.contains("out-"), "{manifest}");
    let names = fs::read_dir(place.path("")).unwrap().map(|entry| entry.unwrap().path());
    assert_eq!(
        names
            .filter(|name| name.extension().is_some_and(|end| end == "tmp"))
            .count(),
        0
    );
}

#[test]
fn a_fifo_is_not_read_and_written_by_one_run() {
    let place = Place::with_pairs(1);
    place.fifo("fifo");
    let message = place.refusal(&["-o", "fifo", "fifo"], 2);
    assert!(
        message.contains("fifo: the output is also an input (fifo)"),
        "{message}"
    );
}

#[test]
fn a_link_stays_a_link_and_what_it_leads_to_is_written() {
    let place = Place::with_pairs(2);
    fs::create_dir(place.path("there")).unwrap();
    std::os::unix::fs::symlink("there/real.jsonl", place.path("out.jsonl")).unwrap();
    for force in [&[][..], &["--force"]] {
        let run = place.score(&[&["-o", "out.jsonl", "pairs.jsonl"], force].concat());
        assert_eq!(run.code, 0, "{}", run.stderr);
        assert!(place.path("out.jsonl").symlink_metadata().unwrap().is_symlink());
        assert_eq!(json_lines(&place.read("there/real.jsonl")).len(), 2);
    }
}

#[test]
fn a_model_that_does_not_load_leaves_nothing_behind() {
    let place = Place::with_pairs(2);
    let output = process(&crag())
        .args([
            "score",
            "--offline",
            "--model",
            "nowhere/",
            "-o",
            "out.jsonl",
            "pairs.jsonl",
        ])
        .current_dir(place.path(""))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(place.outputs().is_empty(), "{:?}", place.outputs());
}

#[test]
fn places_that_cannot_be_written_are_one_clear_error() {
    let place = Place::with_pairs(2);
    fs::create_dir(place.path("folder")).unwrap();
    let message = place.refusal(&["-o", "folder", "pairs.jsonl"], 1);
    assert!(
        message.contains("folder: expected the name of an output file, found a folder"),
        "{message}"
    );
    let message = place.refusal(&["-o", "missing/", "pairs.jsonl"], 1);
    assert!(
        message.contains("missing/: expected the name of an output file, found a folder"),
        "{message}"
    );
    let message = place.refusal(&["-o", "nowhere/out.jsonl", "pairs.jsonl"], 1);
    assert!(
        message.contains("nowhere/out.jsonl: the folder nowhere does not exist; make it first"),
        "{message}"
    );
    let message = place.refusal(&["-o", "pairs.jsonl/out.jsonl", "pairs.jsonl"], 1);
    assert!(message.contains("Not a directory"), "{message}");
    let message = place.refusal(&["-o", "/dev/full", "pairs.jsonl"], 1);
    assert!(
        message.contains("cannot write the records: No space left on device"),
        "{message}"
    );
    // Who may write anywhere cannot see this.
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(place.path("folder"), fs::Permissions::from_mode(0o555)).unwrap();
    if fs::write(place.path("folder/probe"), "").is_ok() {
        eprintln!("skipped: this user may write into a folder without permission");
    } else {
        let message = place.refusal(&["-o", "folder/out.jsonl", "pairs.jsonl"], 1);
        assert!(message.contains("Permission denied"), "{message}");
    }
    fs::set_permissions(place.path("folder"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn devices_and_fifos_take_the_answers_directly() {
    let place = Place::with_pairs(20);
    let printed = place.score(&["pairs.jsonl"]).stdout;
    for name in ["-", "/dev/stdout", "/proc/self/fd/1"] {
        let run = place.score(&["-o", name, "pairs.jsonl"]);
        assert!(run.code == 0 && run.stdout == printed, "{name}: {}", run.stderr);
    }
    // A file behind stdout is written to, not beside.
    let file = fs::File::create(place.path("redirected")).unwrap();
    let mut command = place.command(&["-q", "-o", "/dev/stdout", "pairs.jsonl"]);
    assert!(command.stdout(file).stderr(Stdio::null()).status().unwrap().success());
    assert!(place.read("redirected") == printed);

    place.fifo("out.fifo");
    let fifo = place.path("out.fifo");
    let reader = std::thread::spawn(move || fs::read(fifo).unwrap());
    let run = place.score(&["-o", "out.fifo", "pairs.jsonl"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(reader.join().unwrap() == printed);
    // A reader that goes away is as with a pipe.
    let fifo = place.path("out.fifo");
    let reader = std::thread::spawn(move || fs::File::open(fifo).unwrap().read(&mut [0; 10]).unwrap());
    place.write("many.jsonl", pairs(0..3000));
    let run = place.score(&["-o", "out.fifo", "many.jsonl"]);
    assert_eq!(run.code, 141, "{}", run.stderr);
    reader.join().unwrap();

    let message = place.refusal(&["-o", "/dev/null", "--resume", "pairs.jsonl"], 2);
    assert!(message.contains("/dev/null is no file"), "{message}");
    assert_eq!(place.outputs(), ["out.fifo"]);
}

#[test]
fn the_names_ending_says_how_it_is_compressed() {
    let place = Place::with_pairs(0);
    // Enough for two members.
    let long = "x".repeat(1000);
    let line = |i: usize| format!(r#"{{"id":{i},"note":"{long}","text":"a b","drug":"a","adr":"b"}}"#) + "\n";
    place.write("many.jsonl", (0..1500).map(line).collect::<String>());
    for input in ["many.jsonl", "pairs.jsonl"] {
        let printed = place.score(&[input]).stdout;
        for (ending, program) in [("gz", "gzip"), ("bz2", "bzip2"), ("zst", "zstd")] {
            let name = format!("out.{input}.{ending}");
            let run = place.score(&["-o", &name, input]);
            assert_eq!(run.code, 0, "{name}: {}", run.stderr);
            // crag reads what it writes.
            if input == "many.jsonl" {
                let read = place.score(&["--output-key", "again", &name]);
                assert_eq!(json_lines(&read.stdout).len(), 1500);
                let first = |bytes: &[u8]| -> Value { json_lines(bytes)[0]["probability"].clone() };
                assert_eq!(first(&read.stdout), first(&printed));
                assert!(place.read(&name).len() < printed.len() / 5);
            }
            match Command::new(program).arg("-dc").arg(place.path(&name)).output() {
                Ok(output) => assert!(output.status.success() && output.stdout == printed, "{name}"),
                Err(_) => eprintln!("skipped: {program} is not here to read {name}"),
            }
        }
    }
}

#[test]
fn flags_that_need_an_output_say_so() {
    let place = Place::with_pairs(1);
    for flag in ["--resume", "--force"] {
        let run = place.score(&[flag, "pairs.jsonl"]);
        assert_eq!(run.code, 2, "{}", run.stderr);
        assert!(
            run.stderr.contains(&format!("{flag}: expected -o OUT as well")),
            "{}",
            run.stderr
        );
    }
    let message = place.refusal(&["-o", "/dev/fd/2.gz", "pairs.jsonl"], 2);
    assert!(message.contains("only a file is written compressed"), "{message}");
}

#[test]
fn a_pair_by_flags_goes_into_a_file_too() {
    let place = Place::with_pairs(0);
    let pair = [
        "--text",
        "Aspirin caused bleeding.",
        "--drug",
        "Aspirin",
        "--adr",
        "bleeding",
    ];
    let run = place.score(&[&["-o", "out.jsonl"], &pair[..]].concat());
    assert_eq!(run.code, 0, "{}", run.stderr);
    assert!(place.read("out.jsonl") == place.score(&[&pair[..], &["--json"]].concat()).stdout);
}

#[test]
fn one_of_many_starters_gets_the_output() {
    let rounds = std::env::var("CRAG_OVERLAPS").map_or(3, |rounds| rounds.parse().unwrap());
    let lines = pairs(0..5);
    let place = Place::with_pairs(5);
    let expected = place.score(&["pairs.jsonl"]).stdout;
    for round in 0..rounds {
        let name = format!("out{round}.jsonl");
        let start = |_| {
            let mut command = place.command(&["-o", &name]);
            command
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::piped());
            command.spawn().unwrap()
        };
        let mut starters: Vec<_> = (0..8).map(start).collect();
        // The winner waits for its stdin, so all others come upon its lock.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        let mut winner = None;
        while let Some(mut child) = starters.pop() {
            let is_last = starters.is_empty();
            if is_last && winner.is_none() {
                winner = Some(child);
                break;
            }
            match child.try_wait().unwrap() {
                Some(status) => {
                    let mut stderr = String::new();
                    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
                    assert_eq!(status.code(), Some(11), "{stderr}");
                    assert_eq!(stderr.lines().count(), 1, "{stderr}");
                    assert!(stderr.contains("another run is writing this output"), "{stderr}");
                }
                None => {
                    assert!(std::time::Instant::now() < deadline, "more than one is running");
                    starters.insert(0, child);
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
            }
        }
        let mut winner = winner.unwrap();
        assert!(!place.exists(&name));
        winner.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        assert_eq!(winner.wait().unwrap().code(), Some(0));
        assert!(place.read(&name) == expected);
        fs::remove_file(place.path(&name)).unwrap();
        assert_eq!(place.outputs(), [""; 0]);
    }
    println!("{rounds} rounds of 8 starters: one wrote the output, 7 ended with code 11");
}

#[test]
fn a_second_run_can_wait_for_the_first() {
    let place = Place::with_pairs(5);
    let mut first = place.command(&["-q", "-o", "out.jsonl"]);
    let mut first = first.stdin(Stdio::piped()).spawn().unwrap();
    wait_for(|| place.exists("out.jsonl.progress"));
    let second = place
        .command(&["-o", "out.jsonl", "--force", "--lock-timeout", "60", "pairs.jsonl"])
        .spawn();
    let mut second = second.unwrap();
    // As soon as it has the file open it asks for its lock.
    wait_for(|| has_open(second.id(), "out.jsonl.partial"));
    assert!(second.try_wait().unwrap().is_none());
    first.stdin.take().unwrap().write_all(pairs(0..1).as_bytes()).unwrap();
    assert_eq!(first.wait().unwrap().code(), Some(0));
    assert_eq!(second.wait().unwrap().code(), Some(0));
    assert_eq!(json_lines(&place.read("out.jsonl")).len(), 5);
    assert_eq!(place.outputs(), ["out.jsonl"]);
}

#[test]
fn stdout_that_is_open_for_reading_alone_is_as_good_as_closed() {
    let place = Place::with_pairs(2);
    for arguments in [
        &["pairs.jsonl"][..],
        &["--summary-json", "-", "-o", "out.jsonl", "--force", "pairs.jsonl"],
    ] {
        let stdout = fs::File::open("/dev/null").unwrap();
        let run = place.command(arguments).stdout(stdout).output().unwrap();
        assert_eq!(run.status.code(), Some(1), "{arguments:?}");
        let said = String::from_utf8_lossy(&run.stderr);
        assert!(said.contains("not open for writing"), "{said}");
    }
}

#[test]
fn reports_do_not_mix_with_records() {
    let place = Place::with_pairs(2);
    place.write("doc.txt", "1|t|Title\n1|a|Abstract\n");
    let extract = |name| {
        let mut extract = process(&crag());
        extract.args(["extract", "--from", "pubtator", "--summary-json", name, "doc.txt"]);
        extract.current_dir(place.path(""));
        extract
    };
    for mut command in [
        place.command(&["--summary-json", "-", "pairs.jsonl"]),
        place.command(&["--manifest", "-", "pairs.jsonl"]),
        place.command(&["--summary-json", "/dev/stdout", "-o", "-", "pairs.jsonl"]),
        extract("-"),
    ] {
        let run = command.output().unwrap();
        let said = String::from_utf8_lossy(&run.stderr);
        assert!(said.contains("-: stdout has the records; name a file"), "{said}");
        assert_eq!(
            (run.status.code(), run.stdout.as_slice()),
            (Some(2), &b""[..]),
            "{said}"
        );
    }
}

#[test]
fn a_summary_that_nobody_reads_any_more_is_a_closed_pipe() {
    let place = Place::with_pairs(3);
    place.write("doc.txt", "1|t|Title\n1|a|Abstract\n");
    let mut extract = process(&crag());
    extract.args(["extract", "--from", "pubtator", "-o", "out.jsonl.gz", "doc.txt"]);
    extract.current_dir(place.path(""));
    for mut command in [place.command(&["-o", "out.jsonl", "pairs.jsonl"]), extract] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let run = command.args(["--summary-json", "-"]).stdout(writer).output().unwrap();
        assert_eq!(run.status.code(), Some(141), "{}", String::from_utf8_lossy(&run.stderr));
    }
    assert_eq!(json_lines(&place.read("out.jsonl")).len(), 3);
}
