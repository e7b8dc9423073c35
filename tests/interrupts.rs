//! SIGINT, SIGTERM and SIGHUP: the right code within 5 s, whatever the run is waiting for, and nothing lost. On the
//! built-in demo model.
//!
//! `CRAG_SIGNALS` sets how many of each.

use std::fs;
use std::io::{BufRead as _, BufReader, PipeWriter, Read as _, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

use crate::common::place::{Place, is_absent_or, mixed_lines, pairs, wait_for};
use crate::common::random::Random;
use crate::common::signals::{heed_signals, heeds, send};

const SIGNALS: [(&str, i32); 3] = [("INT", 2), ("TERM", 15), ("HUP", 1)];

/// `crag score` on the demo model, which heeds signals.
fn score(place: &Place, arguments: &[&str]) -> Command {
    let mut command = place.command(arguments);
    heed_signals(&mut command);
    command
}

/// What the threads of a process are at, for a message.
fn threads(child: &Child) -> String {
    let tasks = fs::read_dir(format!("/proc/{}/task", child.id()))
        .into_iter()
        .flatten()
        .flatten();
    let of = |path: std::path::PathBuf| {
        let read = |name| fs::read_to_string(path.join(name)).unwrap_or_default();
        let state = read("status")
            .lines()
            .find(|line| line.starts_with("State"))
            .unwrap_or_default()
            .to_owned();
        format!("{} {state} {}", read("comm").trim(), read("wchan"))
    };
    tasks.map(|task| of(task.path())).collect::<Vec<_>>().join("; ")
}

/// Waits for the end, which has to come within 5 s.
fn end(child: &mut Child, since: Instant) -> ExitStatus {
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if since.elapsed() >= Duration::from_secs(5) {
            let threads = threads(child);
            child.kill().unwrap();
            panic!("still running after {:?}: {threads}", since.elapsed());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until a pipe takes no more.
fn wait_until_full(pipe: &PipeWriter) {
    wait_for(|| {
        let mut polled = [PollFd::new(pipe, PollFlags::OUT)];
        rustix::event::poll(&mut polled, Some(&Timespec::default())).unwrap() == 0
    });
}

#[test]
fn an_interrupted_run_keeps_its_progress_and_is_gone_on_with() {
    let rounds = std::env::var("CRAG_SIGNALS").map_or(4, |rounds| rounds.parse().unwrap());
    let mut random = Random(0x5eed_0005);
    let place = Place::with_pairs(0);
    place.write("in.jsonl", mixed_lines(0..2000));
    fn arguments(name: &str) -> [&str; 4] {
        ["-o", name, "--no-reuse", "in.jsonl"]
    }
    let started = Instant::now();
    assert_eq!(place.score(&arguments("expected.jsonl")).code, 3);
    let whole = started.elapsed();
    let expected = place.read("expected.jsonl");
    let (mut in_order, mut early, mut late, mut longest) = (0, 0, 0, Duration::ZERO);
    for round in 0..rounds {
        for (signal, number) in SIGNALS {
            let name = format!("out{round}{signal}.jsonl");
            let mut child = score(&place, &arguments(&name));
            let mut child = child.stderr(Stdio::piped()).spawn().unwrap();
            // From the first state on it is under way; the signal comes at any moment of the run, some before.
            if round % 5 > 0 {
                wait_for(|| place.exists(&format!("{name}.progress")) || place.exists(&name));
            }
            std::thread::sleep(whole.mul_f64(random.below(1000) as f64 / 1200.0));
            let since = Instant::now();
            if child.try_wait().unwrap().is_none() {
                send(&child, signal);
            }
            let status = end(&mut child, since);
            longest = longest.max(since.elapsed());
            let mut stderr = String::new();
            child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
            assert!(!stderr.contains("panicked"), "{stderr}");
            assert!(is_absent_or(&place.path(&name), &expected));
            if status.code() == Some(3) {
                late += 1;
            } else if stderr.contains("with --resume goes on") {
                assert_eq!(status.code(), Some(128 + number), "{stderr}");
                in_order += 1;
                let state = fs::read_to_string(place.path(&format!("{name}.progress"))).unwrap();
                let state: serde_json::Value = serde_json::from_str(&state).unwrap();
                let partial = place.read(&format!("{name}.partial"));
                assert_eq!(
                    state["output"]["bytes"],
                    partial.len(),
                    "{name}: not all that was written is kept"
                );
            } else {
                // Before the run: by the handler, or by the signal where there was no handler yet.
                assert!(
                    status.code() == Some(128 + number) || status.signal() == Some(number),
                    "{status}: {stderr}"
                );
                early += 1;
            }
            if !place.exists(&name) {
                let run = place.score(&[&arguments(&name)[..], &["--resume"]].concat());
                assert_eq!(run.code, 3, "{}", run.stderr);
            }
            assert!(place.read(&name) == expected, "{name}: other bytes");
            fs::remove_file(place.path(&name)).unwrap();
        }
    }
    println!(
        "{rounds} of each signal: {in_order} in order, {early} before the run, {late} after it; at most {longest:?} to \
         the end; all resumed to the same bytes"
    );
    assert!(in_order > 0, "no signal hit a run");
}

#[test]
fn a_reader_that_waits_does_not_hold_the_end_up() {
    for (signal, number) in SIGNALS {
        let place = Place::with_pairs(0);
        let mut child = score(&place, &["-o", "out.jsonl"]);
        let mut child = child.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.as_mut().unwrap();
        stdin.write_all(pairs(0..10).as_bytes()).unwrap();
        wait_for(|| {
            fs::read(place.path("out.jsonl.partial"))
                .is_ok_and(|bytes| bytes.iter().filter(|&&b| b == b'\n').count() == 10)
        });
        let since = Instant::now();
        send(&child, signal);
        let status = end(&mut child, since);
        assert_eq!(status.code(), Some(128 + number));
        assert!(since.elapsed() < Duration::from_secs(2), "{:?}", since.elapsed());
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert!(
            stderr.contains(&format!("SIG{signal}: finishing what is under way")),
            "{stderr}"
        );
        assert!(
            stderr.contains("interrupted; the same command with --resume goes on"),
            "{stderr}"
        );
        // All ten are kept.
        let run = place.score_stdin(&["-o", "out.jsonl", "--resume"], &pairs(0..12));
        assert!(run.stderr.contains("10 of them by earlier runs"), "{}", run.stderr);
    }
}

#[test]
fn what_was_answered_goes_to_stdout_before_the_end() {
    let place = Place::with_pairs(0);
    let mut child = score(&place, &[]);
    let mut child = child
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.as_mut().unwrap().write_all(pairs(0..3).as_bytes()).unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    // Though more lines may come: whoever sends them waits for answers.
    let mut answers = String::new();
    for _ in 0..3 {
        stdout.read_line(&mut answers).unwrap();
    }
    send(&child, "TERM");
    assert_eq!(end(&mut child, Instant::now()).code(), Some(143));
    stdout.read_to_string(&mut answers).unwrap();
    assert_eq!(answers.as_bytes(), place.score_stdin(&[], &pairs(0..3)).stdout);
}

#[test]
fn an_output_that_nobody_reads_does_not_hold_the_end_up() {
    let place = Place::with_pairs(5000);
    let (_unread, stdout) = std::io::pipe().unwrap();
    let mut child = score(&place, &["pairs.jsonl"]);
    let child = child.stdout(stdout.try_clone().unwrap()).stderr(Stdio::null());
    let mut child = child.spawn().unwrap();
    // Nobody reads: the pipe fills up, and the run is stuck in a write.
    wait_until_full(&stdout);
    let since = Instant::now();
    send(&child, "INT");
    assert_eq!(end(&mut child, since).code(), Some(130));
}

#[test]
fn a_second_signal_ends_at_once() {
    let place = Place::with_pairs(5000);
    let (_unread, stdout) = std::io::pipe().unwrap();
    let mut child = score(&place, &["pairs.jsonl"]);
    let child = child.stdout(stdout.try_clone().unwrap()).stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    wait_until_full(&stdout);
    send(&child, "INT");
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(said.any(|line| line.unwrap().contains("once more ends it at once"))));
    if receiver.recv_timeout(Duration::from_secs(5)) != Ok(true) {
        child.kill().unwrap();
        panic!("nothing said");
    }
    let since = Instant::now();
    send(&child, "TERM");
    assert_eq!(end(&mut child, since).code(), Some(143));
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
}

/// The summary that `summary.json` holds, where an earlier run that ended well had left one.
fn ended_by_signals(place: &Place, command: &mut Command, signals: &[&str]) -> serde_json::Value {
    place.write(
        "summary.json",
        r#"{"run_id":"earlier","outcome":{"status":"complete"}}"#,
    );
    command.args(["--summary-json", "summary.json"]);
    let (_unread, stdout) = std::io::pipe().unwrap();
    let child = command.stdin(Stdio::piped()).stdout(stdout.try_clone().unwrap());
    let mut child = child.spawn().unwrap();
    for signal in signals {
        // Something to do, and nobody who takes it: then the run is under way, and does not end by itself.
        if let Some(stdin) = child.stdin.take() {
            std::thread::spawn(move || {
                let mut stdin = stdin;
                let _ = stdin.write_all(mixed_lines(0..5000).as_bytes());
                std::thread::sleep(Duration::from_secs(10));
            });
            wait_until_full(&stdout);
        }
        send(&child, signal);
        std::thread::sleep(Duration::from_millis(100));
    }
    end(&mut child, Instant::now());
    let summary: serde_json::Value = serde_json::from_slice(&place.read("summary.json")).unwrap();
    assert_eq!(
        summary["counts"],
        serde_json::Value::Null,
        "what is not known is not told: {summary}"
    );
    summary["outcome"].clone()
}

#[test]
fn a_run_that_a_signal_ends_as_it_is_leaves_no_earlier_summary_behind() {
    let place = Place::with_pairs(0);
    let outcome = ended_by_signals(&place, &mut score(&place, &[]), &["INT", "TERM"]);
    assert_eq!(
        (&outcome["status"], &outcome["exit_code"]),
        (&"interrupted".into(), &143.into())
    );
    // No second one: what takes too long is ended.
    let outcome = ended_by_signals(&place, &mut score(&place, &[]), &["HUP"]);
    assert_eq!(
        (&outcome["status"], &outcome["exit_code"]),
        (&"interrupted".into(), &129.into())
    );
}

#[test]
fn before_the_run_a_signal_ends_at_once() {
    // Opening a fifo for writing waits for its reader.
    let place = Place::with_pairs(1);
    place.fifo("out.fifo");
    let mut child = score(&place, &["-o", "out.fifo", "pairs.jsonl"]).spawn().unwrap();
    wait_for(|| heeds(child.id(), libc::SIGINT));
    let since = Instant::now();
    send(&child, "INT");
    assert_eq!(end(&mut child, since).code(), Some(130));
    assert!(since.elapsed() < Duration::from_secs(1), "{:?}", since.elapsed());
}

#[test]
fn a_signal_that_was_ignored_from_the_start_stays_ignored() {
    let place = Place::with_pairs(0);
    let mut shell = Command::new("sh");
    let program = place.command(&[]).get_program().to_str().unwrap().to_owned();
    let script = format!("trap '' HUP; exec {program} score --model demo -o out.jsonl");
    shell.args(["-c", &script]).current_dir(place.path("")).process_group(0);
    let mut child = shell.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    wait_for(|| place.exists("out.jsonl.progress"));
    send(&child, "HUP");
    std::thread::sleep(Duration::from_millis(300));
    child.stdin.take().unwrap().write_all(pairs(0..2).as_bytes()).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(place.outputs(), ["out.jsonl"]);
}

#[test]
fn streams_that_are_set_not_to_block_lose_nothing() {
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    let not_blocking = || {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        (ours, theirs)
    };
    let lines = mixed_lines(0..4000);
    let place = Place::with_pairs(0);
    place.write("in.jsonl", &lines);
    let expected = place.command(&["in.jsonl"]).output().unwrap();
    assert_eq!(expected.status.code(), Some(3));

    let ((mut given, stdin), (mut taken, stdout), (mut said, stderr)) =
        (not_blocking(), not_blocking(), not_blocking());
    let mut child = place
        .command(&["-v"])
        .stdin(Stdio::from(OwnedFd::from(stdin)))
        .stdout(OwnedFd::from(stdout))
        .stderr(OwnedFd::from(stderr))
        .spawn()
        .unwrap();
    let feeder = std::thread::spawn(move || {
        for part in lines.as_bytes().chunks(100_000) {
            given.write_all(part).unwrap();
            // Long enough for the reader to find nothing.
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let listener = std::thread::spawn(move || {
        let mut text = String::new();
        said.read_to_string(&mut text).unwrap();
        text
    });
    // Nobody reads until there is no more room for answers.
    std::thread::sleep(Duration::from_secs(1));
    let mut answers = Vec::new();
    taken.read_to_end(&mut answers).unwrap();
    feeder.join().unwrap();
    let said = listener.join().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3), "{said}");
    assert!(answers == expected.stdout, "{said}");
    assert!(said.contains("scored 3680 of 3920 lines"), "{said}");
}
