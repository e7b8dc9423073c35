//! Every operation on the disk fails once, or from then on, at every place of a small run; and the power goes at
//! every place. In process, with a stub for the network.
//!
//! `CRAG_FAULT_LINES` sets how long the run is (6 lines without it, and then not all kinds of
//! failures for each kind of output).

use std::collections::HashMap;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crag::files::{Claim, Companion, Disk, Input, OutputError, OutputFile, RealDisk};
use crag::scoring::{Counts, FileSink, Member, Opened, Options, Plan, Setting, check_inputs, run_into};

use crate::lines_stub::{StubModel, StubText, options};

const ENOSPC: i32 = 28;
const EIO: i32 = 5;
const EINTR: i32 = 4;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Error(i32),
    /// Half of the bytes are written, and the call says so.
    Short,
    /// Half of the bytes are written, and the call fails.
    Torn,
}

/// Fails the operation with this number, and perhaps all that follow.
struct FaultyDisk {
    fault: Fault,
    at: usize,
    for_good: bool,
    operations: AtomicUsize,
}

impl FaultyDisk {
    fn trips(&self) -> bool {
        let number = self.operations.fetch_add(1, Ordering::Relaxed);
        if self.for_good {
            number >= self.at
        } else {
            number == self.at
        }
    }

    fn check(&self) -> io::Result<()> {
        match (self.trips(), self.fault) {
            (true, Fault::Error(code)) => Err(io::Error::from_raw_os_error(code)),
            (true, Fault::Torn) => Err(io::Error::from_raw_os_error(EIO)),
            _ => Ok(()),
        }
    }
}

impl Disk for FaultyDisk {
    fn open(&self, path: &Path, like: Option<&Permissions>) -> io::Result<File> {
        self.check().and_then(|()| RealDisk.open(path, like))
    }

    fn create(&self, path: &Path, like: Option<&Permissions>) -> io::Result<File> {
        self.check().and_then(|()| RealDisk.create(path, like))
    }

    fn write(&self, file: &File, bytes: &[u8]) -> io::Result<usize> {
        if !self.trips() {
            return RealDisk.write(file, bytes);
        }
        let half = &bytes[..bytes.len().div_ceil(2)];
        match self.fault {
            Fault::Error(code) => Err(io::Error::from_raw_os_error(code)),
            Fault::Short => RealDisk.write(file, half),
            Fault::Torn => RealDisk
                .write(file, half)
                .and(Err(io::Error::from_raw_os_error(ENOSPC))),
        }
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.check().and_then(|()| RealDisk.sync(file))
    }

    fn truncate(&self, file: &File, length: u64) -> io::Result<()> {
        self.check().and_then(|()| RealDisk.truncate(file, length))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check().and_then(|()| RealDisk.rename(from, to))
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check().and_then(|()| RealDisk.rename_new(from, to))
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.check().and_then(|()| RealDisk.sync_folder(folder))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.check().and_then(|()| RealDisk.remove(path))
    }
}

/// A folder with two inputs, and what belongs into their output.
struct Bench {
    folder: tempfile::TempDir,
    inputs: Vec<PathBuf>,
    expected: Vec<u8>,
    /// Of the output: decides whether it is compressed.
    name: &'static str,
}

const MANIFEST: &str = "manifest.json";
/// Other tests of this process start programs, and between fork and exec a child holds the locks of this one.
const LOCKS_OF_CHILDREN: Duration = Duration::from_secs(20);
const OLD: &[u8] = b"an older output\n";

impl Bench {
    fn new(name: &'static str) -> Self {
        let lines = std::env::var("CRAG_FAULT_LINES").map_or(6, |lines| lines.parse().unwrap());
        // Failures are put in; a disk that really syncs would only be slow.
        let folder = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .unwrap();
        let pair = |i: usize| match i % 4 {
            2 => "{\"no\": \"pair\"}\n".to_owned(),
            3 if i % 8 == 3 => "  \n".to_owned(),
            3 => "no object\n".to_owned(),
            _ => format!("{{\"id\":{i},\"text\":\"drug{i} caused rash\",\"drug\":\"drug{i}\",\"adr\":\"rash\"}}\n"),
        };
        let half = |range: std::ops::Range<usize>| range.map(pair).collect::<String>();
        let inputs = vec![folder.path().join("a.jsonl"), folder.path().join("b.jsonl")];
        fs::write(&inputs[0], half(0..lines / 2)).unwrap();
        fs::write(&inputs[1], half(lines / 2..lines)).unwrap();
        let mut bench = Self {
            folder,
            inputs,
            expected: Vec::new(),
            name,
        };
        bench.score(Arc::new(RealDisk), Claim::default()).unwrap();
        bench.expected = fs::read(bench.target()).unwrap();
        bench.clear();
        bench
    }

    fn target(&self) -> PathBuf {
        self.folder.path().join(self.name)
    }

    fn clear(&self) {
        for entry in fs::read_dir(self.folder.path()).unwrap() {
            let path = entry.unwrap().path();
            if !self.inputs.contains(&path) {
                fs::remove_file(path).unwrap();
            }
        }
    }

    /// Files other than the inputs.
    fn left(&self) -> Vec<String> {
        let names = fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let names = names.filter(|path| !self.inputs.contains(path));
        let mut names: Vec<String> = names
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    }

    /// One whole run, as the command line makes it; a state is saved after every line.
    fn score(&self, disk: Arc<dyn Disk>, claim: Claim) -> anyhow::Result<Counts> {
        let claim = Claim {
            wait: LOCKS_OF_CHILDREN,
            ..claim
        };
        let inputs = || self.inputs.iter().cloned().map(Input::File).collect::<Vec<_>>();
        let output = OutputFile::claim(disk, &self.target(), &inputs(), claim)?;
        let manifest = self.folder.path().join(MANIFEST);
        let kept = fs::read(&manifest).ok();
        let plan = Plan {
            settings: vec![Setting::new("model", "stub")],
            names: inputs().iter().map(Input::name).collect(),
            resume: claim.resume,
            force: claim.force,
            save_every: Duration::ZERO,
            evidence: kept.and_then(|bytes| serde_json::from_slice(&bytes).ok()),
        };
        let (mut sink, start) = match FileSink::open(output, plan)? {
            Opened::Run(sink, start) => (*sink, start),
            Opened::Finished(mut output, start) => {
                let counts = start.counts.clone();
                let options = Options {
                    start: Arc::new(start),
                    ..options()
                };
                check_inputs(inputs(), &options)?;
                output.settle(&[])?;
                return Ok(counts);
            }
        };
        let options = Options {
            start: Arc::new(start),
            ..options()
        };
        let counts = run_into(
            inputs(),
            &mut sink,
            &[Member::only(&StubModel::default(), &StubText::default())],
            &options,
        )?;
        let finished = sink.complete(&counts)?;
        sink.publish(&[Companion {
            path: manifest,
            contents: serde_json::to_vec(&finished.evidence)?,
            replaces: |_| true,
        }])?;
        Ok(counts)
    }

    fn assert_old_or_complete(&self, old: Option<&[u8]>, what: &str) {
        let found = fs::read(self.target()).ok();
        assert!(
            found.as_deref() == old || found.as_deref() == Some(&self.expected),
            "{what}: neither absent, old nor complete: {:?}",
            found.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        );
    }

    /// The same command with `--resume` on a disk that works makes what a run without failures makes.
    fn assert_resumable(&self, force: bool, what: &str) {
        let claim = Claim {
            force,
            resume: true,
            ..Claim::default()
        };
        let counts = self.score(Arc::new(RealDisk), claim);
        let counts = counts.unwrap_or_else(|error| panic!("{what}: not resumable: {error:#}"));
        assert!(fs::read(self.target()).unwrap() == self.expected, "{what}: other bytes");
        let all = self
            .inputs
            .iter()
            .map(|path| fs::read_to_string(path).unwrap().lines().count());
        assert_eq!(counts.records() + counts.blank, all.sum::<usize>() as u64, "{what}");
        let found: serde_json::Value =
            serde_json::from_slice(&fs::read(self.folder.path().join(MANIFEST)).unwrap()).unwrap();
        assert_eq!(found["complete"], true, "{what}");
        // And once more: there is nothing to do, and it can be told.
        self.score(Arc::new(RealDisk), claim).unwrap();
        assert!(
            fs::read(self.target()).unwrap() == self.expected,
            "{what}: changed when it was complete"
        );
        assert_eq!(self.left(), [MANIFEST, self.name], "{what}");
    }
}

/// Operations at the end of a run that only tidy up: making sure that nobody else writes, and two removals.
const TIDYING: usize = 3;

fn operations_of_a_run(bench: &Bench, force: bool) -> usize {
    bench.clear();
    let disk = Arc::new(FaultyDisk {
        fault: Fault::Short,
        at: usize::MAX,
        for_good: false,
        operations: AtomicUsize::new(0),
    });
    let claim = Claim {
        force,
        ..Claim::default()
    };
    bench.score(disk.clone(), claim).unwrap();
    disk.operations.load(Ordering::Relaxed)
}

/// Returns how many runs there were, and how many of them failed.
fn fail_every_operation(bench: &Bench, fault: Fault, for_good: bool, force: bool) -> (usize, usize) {
    let (mut runs, mut failed) = (0, 0);
    let all = operations_of_a_run(bench, force);
    for at in 0.. {
        bench.clear();
        let old = force.then_some(OLD);
        if force {
            fs::write(bench.target(), OLD).unwrap();
        }
        let disk = Arc::new(FaultyDisk {
            fault,
            at,
            for_good,
            operations: AtomicUsize::new(0),
        });
        let claim = Claim {
            force,
            ..Claim::default()
        };
        let what = format!("{fault:?} at operation {at}, for good: {for_good}, force: {force}");
        let result = bench.score(disk.clone(), claim);
        bench.assert_old_or_complete(old, &what);
        let operations = disk.operations.load(Ordering::Relaxed);
        if result.is_ok() {
            assert!(
                fs::read(bench.target()).unwrap() == bench.expected,
                "{what}: said to be well"
            );
        }
        // What is interrupted or short is done again; everything else has to end the run.
        let harmless = matches!((fault, for_good), (Fault::Error(EINTR), false) | (Fault::Short, _));
        assert!(result.is_ok() || !harmless, "{what}: {result:?}");
        assert!(
            result.is_err() || harmless || at + TIDYING >= all,
            "{what}: not noticed"
        );
        failed += usize::from(result.is_err());
        bench.assert_resumable(force, &what);
        runs += 1;
        if operations <= at {
            return (runs, failed);
        }
    }
    unreachable!()
}

fn fail_in_all_ways(name: &'static str, force: bool) {
    let bench = Bench::new(name);
    // The kinds that differ most, unless more is asked for.
    let is_long = force || name.ends_with("gz");
    let short = std::env::var_os("CRAG_FAULT_LINES").is_none() && is_long;
    let faults = [
        Fault::Error(ENOSPC),
        Fault::Torn,
        Fault::Error(EIO),
        Fault::Error(EINTR),
        Fault::Short,
    ];
    for &fault in &faults[..if short { 2 } else { faults.len() }] {
        for for_good in [false, true] {
            let (runs, failed) = fail_every_operation(&bench, fault, for_good, force);
            println!("{name}: {fault:?}, for good: {for_good}: {runs} runs, {failed} failed, all resumed");
        }
    }
}

#[test]
fn whatever_operation_fails_the_run_can_be_gone_on_with() {
    fail_in_all_ways("out.jsonl", false);
}

#[test]
fn whatever_operation_fails_an_old_output_stays_until_the_new_is_complete() {
    fail_in_all_ways("out.jsonl", true);
}

#[test]
fn whatever_operation_fails_a_compressed_run_can_be_gone_on_with() {
    fail_in_all_ways("out.jsonl.gz", false);
}

#[test]
fn a_resumed_run_may_fail_anywhere_too() {
    let bench = Bench::new("out.jsonl");
    for at in 0.. {
        bench.clear();
        let broken = |at| FaultyDisk {
            fault: Fault::Torn,
            at,
            for_good: true,
            operations: AtomicUsize::new(0),
        };
        // Far enough for there to be something to go on with.
        assert!(bench.score(Arc::new(broken(30)), Claim::default()).is_err());
        let disk = Arc::new(broken(at));
        let claim = Claim {
            resume: true,
            ..Claim::default()
        };
        let result = bench.score(disk.clone(), claim);
        let operations = disk.operations.load(Ordering::Relaxed);
        bench.assert_old_or_complete(None, "resumed");
        if result.is_ok() {
            assert!(
                fs::read(bench.target()).unwrap() == bench.expected,
                "{at}: said to be well"
            );
        }
        bench.assert_resumable(false, &format!("a resumed run that failed at operation {at}"));
        if operations <= at {
            break;
        }
    }
}

/// Forgets, when the power goes, what was not brought to the disk: bytes since a file's last sync, and, of names,
/// all changes since the last sync of their folder, or none.
struct PowerLoss {
    at: usize,
    state: Mutex<Volatile>,
}

#[derive(Default)]
struct Volatile {
    operations: usize,
    /// What each file holds on the disk, by inode.
    durable: HashMap<u64, Vec<u8>>,
    /// Which names there are on the disk.
    names: HashMap<PathBuf, u64>,
    /// Kept open, so that no inode is used twice.
    files: Vec<File>,
}

fn inode(file: &File) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    file.metadata().unwrap().ino()
}

impl PowerLoss {
    fn new(at: usize, bench: &Bench) -> Self {
        let mut state = Volatile::default();
        for name in bench.left() {
            let path = bench.folder.path().join(name);
            let file = File::open(&path).unwrap();
            state.durable.insert(inode(&file), fs::read(&path).unwrap());
            state.names.insert(path, inode(&file));
            state.files.push(file);
        }
        Self {
            at,
            state: Mutex::new(state),
        }
    }

    fn step(&self) -> io::Result<MutexGuard<'_, Volatile>> {
        let mut state = self.state.lock().unwrap();
        state.operations += 1;
        match state.operations > self.at {
            true => Err(io::Error::from_raw_os_error(EIO)),
            false => Ok(state),
        }
    }

    /// Leaves in the folder what is there after a restart. True if the power went during the run.
    fn restart(&self, bench: &Bench, names_are_durable: bool) -> bool {
        let mut state = self.state.lock().unwrap();
        if names_are_durable {
            let names = bench.left().into_iter().map(|name| bench.folder.path().join(name));
            state.names = names
                .map(|path| (path.clone(), inode(&File::open(&path).unwrap())))
                .collect();
        }
        bench.clear();
        for (path, inode) in &state.names {
            fs::write(path, state.durable.get(inode).cloned().unwrap_or_default()).unwrap();
        }
        state.operations > self.at
    }
}

impl Disk for PowerLoss {
    fn open(&self, path: &Path, like: Option<&Permissions>) -> io::Result<File> {
        let mut state = self.step()?;
        let file = RealDisk.open(path, like)?;
        state.files.push(file.try_clone()?);
        Ok(file)
    }

    fn create(&self, path: &Path, like: Option<&Permissions>) -> io::Result<File> {
        let mut state = self.step()?;
        let file = RealDisk.create(path, like)?;
        state.files.push(file.try_clone()?);
        // A file that is emptied may be empty on the disk at any time.
        state.durable.remove(&inode(&file));
        Ok(file)
    }

    fn write(&self, file: &File, bytes: &[u8]) -> io::Result<usize> {
        self.step().and_then(|_| RealDisk.write(file, bytes))
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        let mut state = self.step()?;
        // By another handle: this one may be for writing alone.
        let bytes = fs::read(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        state.durable.insert(inode(file), bytes);
        Ok(())
    }

    fn truncate(&self, file: &File, length: u64) -> io::Result<()> {
        let mut state = self.step()?;
        RealDisk.truncate(file, length)?;
        // May be on the disk at any time.
        if let Some(bytes) = state.durable.get_mut(&inode(file)) {
            bytes.truncate(length as usize);
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step().and_then(|_| RealDisk.rename(from, to))
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step().and_then(|_| RealDisk.rename_new(from, to))
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.step()?;
        state.names.clear();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            // The inputs are not this disk's.
            if !["a.jsonl", "b.jsonl"].iter().any(|name| path.ends_with(name)) {
                let inode = inode(&File::open(&path)?);
                state.names.insert(path, inode);
            }
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step().and_then(|_| RealDisk.remove(path))
    }
}

fn lose_power_everywhere(name: &'static str, force: bool, names_are_durable: bool) {
    let bench = Bench::new(name);
    let mut is_state_kept = false;
    for at in 0.. {
        bench.clear();
        let old = force.then_some(OLD);
        if force {
            fs::write(bench.target(), OLD).unwrap();
        }
        let what = format!("power lost after operation {at}, names durable: {names_are_durable}");
        let disk = Arc::new(PowerLoss::new(at, &bench));
        let claim = Claim {
            force,
            ..Claim::default()
        };
        let result = bench.score(disk.clone(), claim);
        let is_lost = disk.restart(&bench, names_are_durable);
        let left = bench.left();
        let is_left = |ending: &str| left.iter().any(|left| left.ends_with(ending));
        // Before the output is in its place.
        is_state_kept |= is_left(".progress") && is_left(".partial");
        bench.assert_old_or_complete(old, &what);
        if result.is_ok() {
            assert!(
                fs::read(bench.target()).unwrap() == bench.expected,
                "{what}: it was said to be well"
            );
        }
        bench.assert_resumable(force, &what);
        if !is_lost {
            println!("{name}: power lost after each of {at} operations, all resumed");
            assert!(
                is_state_kept,
                "saved states outlive a loss of power, names durable: {names_are_durable}"
            );
            return;
        }
    }
}

#[test]
fn whenever_the_power_goes_the_run_can_be_gone_on_with() {
    for name in ["out.jsonl", "out.jsonl.zst"] {
        for (force, names_are_durable) in [(false, false), (false, true), (true, false), (true, true)] {
            lose_power_everywhere(name, force, names_are_durable);
        }
    }
}

/// Lets nothing be renamed to one name.
struct Occupied(PathBuf);

impl Disk for Occupied {
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        match to == self.0 {
            true => Err(io::Error::from_raw_os_error(libc::EBUSY)),
            false => RealDisk.rename(from, to),
        }
    }
}

#[test]
fn what_appears_together_with_an_output_does_not_without_it() {
    for earlier in [Some("of the old one"), None] {
        let folder = tempfile::tempdir().unwrap();
        let (out, manifest) = (folder.path().join("out"), folder.path().join("out.manifest.json"));
        fs::write(&out, "old").unwrap();
        if let Some(earlier) = earlier {
            fs::write(&manifest, earlier).unwrap();
        }
        let claim = Claim {
            force: true,
            ..Claim::default()
        };
        let mut output = OutputFile::claim(Arc::new(Occupied(out.clone())), &out, &[], claim).unwrap();
        output.append(b"new").unwrap();
        let companions = [Companion {
            path: manifest.clone(),
            contents: b"of the new one".to_vec(),
            replaces: |old| old == b"of the old one",
        }];
        let error = output.publish(&companions).unwrap_err().to_string();
        assert!(error.contains("cannot be put in place"), "{error}");
        assert_eq!(fs::read(&out).unwrap(), b"old");
        assert_eq!(fs::read_to_string(&manifest).ok().as_deref(), earlier);
        // What was to be the output is still there, and nothing else.
        output.discard();
        let left = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(left, 1 + usize::from(earlier.is_some()));
    }
}

#[test]
fn an_unfinished_output_that_is_cut_while_it_is_gone_on_with_is_not_filled_up_with_zeros() {
    type End = fn(&mut OutputFile) -> Result<(), OutputError>;
    let ends: [End; 3] = [
        |output| output.append(b"more"),
        |output| output.save_state(b"state"),
        |output| output.publish(&[]),
    ];
    for end in ends {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let claim = |resume| {
            let claim = Claim {
                resume,
                wait: LOCKS_OF_CHILDREN,
                ..Claim::default()
            };
            OutputFile::claim(Arc::new(RealDisk), &out, &[], claim).unwrap()
        };
        let mut killed = claim(false);
        killed.append(b"answers\n").unwrap();
        killed.save_state(b"state").unwrap();
        let digest = killed.digest();
        drop(killed);
        let mut output = claim(true);
        assert!(output.restore(8, &digest).unwrap());
        fs::File::options()
            .write(true)
            .open(output.partial())
            .unwrap()
            .set_len(3)
            .unwrap();
        let lost = end(&mut output).unwrap_err();
        assert!(matches!(lost, OutputError::Lost { .. }), "{lost}");
        assert!(!out.exists());
    }
}

/// Puts another's file at a name in the moment before something is renamed to it.
struct Overtaken(PathBuf);

impl Disk for Overtaken {
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if to == self.0 {
            fs::write(to, "another's")?;
        }
        RealDisk.rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        if to == self.0 {
            fs::write(to, "another's")?;
        }
        RealDisk.rename_new(from, to)
    }
}

#[test]
fn an_output_that_appears_in_the_last_moment_stays() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let disk = Arc::new(Overtaken(out.clone()));
    let mut output = OutputFile::claim(disk, &out, &[], Claim::default()).unwrap();
    output.append(b"ours").unwrap();
    let error = output.publish(&[]).unwrap_err();
    assert!(matches!(error, OutputError::Appeared { .. }), "{error}");
    assert_eq!(fs::read(&out).unwrap(), b"another's");
    assert_eq!(fs::read(output.partial()).unwrap(), b"ours");
}

/// Takes the file away, once, after it has been opened: whoever held its lock has made it the output meanwhile.
struct TakenAway(AtomicUsize);

impl Disk for TakenAway {
    fn open(&self, path: &Path, like: Option<&Permissions>) -> io::Result<File> {
        let file = RealDisk.open(path, like)?;
        if self.0.fetch_add(1, Ordering::Relaxed) == 0 {
            fs::rename(path, path.with_extension("theirs"))?;
        }
        Ok(file)
    }
}

#[test]
fn what_is_locked_is_what_has_the_name() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let disk = Arc::new(TakenAway(AtomicUsize::new(0)));
    let mut output = OutputFile::claim(disk, &out, &[], Claim::default()).unwrap();
    output.append(b"ours").unwrap();
    assert_eq!(fs::read(output.partial()).unwrap(), b"ours");
    assert_eq!(fs::read(folder.path().join("out.theirs")).unwrap(), b"");
}

/// Lets another run begin when the output is in its place: its state is there, and its lock is held.
struct Followed {
    target: PathBuf,
    next: Mutex<Option<OutputFile>>,
}

impl Disk for Followed {
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut next = self.next.lock().unwrap();
        if next.is_none() && self.target.exists() {
            let claim = Claim {
                force: true,
                ..Claim::default()
            };
            let mut output = OutputFile::claim(Arc::new(RealDisk), &self.target, &[], claim).unwrap();
            output.append(b"next").unwrap();
            output.save_state(b"of the next run").unwrap();
            *next = Some(output);
        }
        RealDisk.sync_folder(folder)
    }
}

#[test]
fn a_run_that_has_ended_leaves_the_next_ones_state_alone() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let disk = Arc::new(Followed {
        target: out.clone(),
        next: Mutex::new(None),
    });
    let mut output = OutputFile::claim(disk.clone(), &out, &[], Claim::default()).unwrap();
    output.append(b"ours").unwrap();
    output.save_state(b"of this run").unwrap();
    output.publish(&[]).unwrap();
    drop(output);
    let mut next = disk.next.lock().unwrap();
    let next = next.as_mut().expect("the next run has begun");
    assert_eq!(next.state().unwrap().as_deref(), Some(&b"of the next run"[..]));
    assert_eq!(fs::read(next.partial()).unwrap(), b"next");
    next.publish(&[]).unwrap();
    assert_eq!(fs::read(&out).unwrap(), b"next");
}
