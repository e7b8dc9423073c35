//! A run in parts on many machines, and the parts' answers put back together.

use std::io::Cursor;

use crag::files::Input;
use crag::scoring::{
    Format, Member, MergeError, Options, Position, Progress, Shard, Sink, check_shards, merge, run_into,
};

use crate::common::pack::{bzip2, gzip, zstd};
use crate::common::{crag, process};
use crate::lines_stub::*;

fn inputs(files: &[Vec<u8>]) -> Vec<Input> {
    let file = |(i, bytes): (usize, &Vec<u8>)| Input::Reader(format!("{i}"), Box::new(Cursor::new(bytes.clone())));
    files.iter().enumerate().map(file).collect()
}

fn options_of(format: Format, shard: Option<Shard>) -> Options {
    Options {
        format,
        shard,
        max_line_bytes: 300,
        ..options()
    }
}

fn scored(files: &[Vec<u8>], format: Format, shard: Option<Shard>) -> Scored {
    let options = options_of(format, shard);
    score_with(inputs(files), &StubModel::default(), &StubText::default(), &options)
}

fn shards(files: &[Vec<u8>], format: Format, count: usize) -> Vec<Vec<u8>> {
    let shard = |i| Shard::parse(&format!("{}/{count}", i + 1)).unwrap();
    (0..count)
        .map(|i| scored(files, format, Some(shard(i))).output)
        .collect()
}

fn merged(parts: &[Vec<u8>], format: Format) -> Result<Vec<u8>, MergeError> {
    let mut output = Vec::new();
    merge(inputs(parts), format, &mut output).map(|_| output)
}

/// `count` lines with blank ones between them, every seventh of which cannot be scored, and where they end.
fn jsonl(range: std::ops::Range<usize>) -> Vec<u8> {
    let line = |i: usize| match i % 28 {
        3 => "[1]\n".to_owned(),
        10 => format!("{{\"id\":{i}}}\r\n"),
        17 => format!("{{\"id\":{i},\"x\":\"{}\"}}\n", "x".repeat(400)),
        24 => format!("\n \n\r\n{{\"text\":\"a\",\"drug\":\"a\",\"adr\":\"b\",\"id\":{i}}}\r\r\n"),
        _ => format!(
            "{{\"id\":{i},\"text\":\"drug{i} rash{}\",\"drug\":\"drug{i}\",\"adr\":\"rash{}\"}}\n",
            i % 5,
            i % 5
        ),
    };
    range.map(line).collect::<String>().into_bytes()
}

fn csv(range: std::ops::Range<usize>) -> Vec<u8> {
    let line = |i: usize| match i % 28 {
        3 => format!("{i},too few\n"),
        10 => format!("{i},drug,\"a\"b,c\n"),
        17 => format!("{i},{},a,b\n", "x".repeat(400)),
        24 => "\n\r\n".to_owned(),
        j if j % 3 == 0 => format!("{i},\"drug{i}\nand, rash\"\"\r\n\",drug{i},rash\r\n"),
        _ => format!("{i},drug{i} rash,drug{i},rash\n"),
    };
    ("\u{feff}id,text,drug,adr\r\n".to_owned() + &range.map(line).collect::<String>()).into_bytes()
}

/// The formats with inputs of many sizes, in one file or in several.
fn cases() -> Vec<(Format, Vec<Vec<u8>>)> {
    let mut cases = Vec::new();
    for size in [0, 1, 62, 63, 64, 65, 66, 130, 500, 1000] {
        for cut in [0, size / 3, size] {
            cases.push((Format::Jsonl, vec![jsonl(0..cut), jsonl(cut..size)]));
            cases.push((Format::Csv, vec![csv(0..cut), csv(cut..size)]));
        }
        cases.push((Format::Jsonl, vec![jsonl(0..size)]));
        cases.push((Format::Csv, vec![csv(0..size)]));
    }
    let tsv: Vec<u8> = csv(0..0).iter().map(|&b| if b == b',' { b'\t' } else { b }).collect();
    let rows: String = (0..300)
        .map(|i| format!("{i}\t\"drug{i} rash\tdrug{i}\trash\n"))
        .collect();
    cases.push((Format::Tsv, vec![[tsv, rows.into_bytes()].concat()]));
    cases
}

#[test]
fn shards_put_back_together_are_the_single_run() {
    for (format, files) in cases() {
        let single = scored(&files, format, None);
        for count in 1..=7 {
            let parts = shards(&files, format, count);
            let what = format!("{format:?}, {count} shards of {} bytes", single.output.len());
            check_shards(inputs(&parts), format).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert!(merged(&parts, format).unwrap() == single.output, "{what}");
        }
    }
}

#[test]
fn every_line_is_counted_by_one_shard() {
    for (format, files) in cases() {
        let single = scored(&files, format, None);
        let single = single.counts();
        for count in [2, 5] {
            let shard = |i| Shard::parse(&format!("{i}/{count}")).unwrap();
            let parts: Vec<Scored> = (1..=count).map(|i| scored(&files, format, Some(shard(i)))).collect();
            let sum = |number: fn(&crag::scoring::Counts) -> u64| -> u64 {
                parts.iter().map(|part| number(part.counts())).sum()
            };
            assert_eq!(sum(|counts| counts.scored), single.scored);
            assert_eq!(sum(|counts| counts.errors()), single.errors());
            assert_eq!(sum(|counts| counts.blank), single.blank);
            assert!(parts.iter().all(|part| part.counts().inputs == single.inputs));
        }
    }
}

/// Keeps how far the inputs have been answered.
#[derive(Default)]
struct Last(Vec<Position>);

impl Sink for Last {
    fn answer(&mut self, _: &[u8], progress: Progress<'_>) -> std::io::Result<()> {
        self.0.push(progress.position.clone());
        Ok(())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }

    fn suspend(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn progress_goes_past_the_lines_of_other_shards() {
    let files = [jsonl(0..200), jsonl(200..300)];
    let single = scored(&files, Format::Jsonl, None);
    let ends: Vec<u64> = single.counts().inputs.iter().map(|input| input.lines).collect();
    for i in 1..=5 {
        let options = options_of(Format::Jsonl, Some(Shard::parse(&format!("{i}/5")).unwrap()));
        let mut last = Last::default();
        run_into(
            inputs(&files),
            &mut last,
            &[Member::only(&StubModel::default(), &StubText::default())],
            &options,
        )
        .unwrap();
        let places: Vec<_> = last.0.iter().map(|position| (position.source, position.line)).collect();
        assert!(places.is_sorted_by(|a, b| a < b), "{i}");
        for (source, &end) in ends.iter().enumerate() {
            assert!(places.contains(&(source, end)), "{i}: {source}");
        }
    }
}

#[test]
fn shards_that_do_not_fit_together_are_a_clear_error() {
    for format in [Format::Jsonl, Format::Csv] {
        let files = [match format {
            Format::Csv => csv(0..700),
            _ => jsonl(0..700),
        }];
        let parts = shards(&files, format, 3);
        let without_a_line = |part: &[u8]| {
            let end = part[..part.len() - 1].iter().rposition(|&b| b == b'\n').unwrap();
            part[..end + 1].to_vec()
        };
        let pick = |indices: &[usize]| indices.iter().map(|&i| parts[i].clone()).collect::<Vec<_>>();
        for wrong in [
            pick(&[0, 1]),
            pick(&[1, 2]),
            pick(&[2, 1, 0]),
            pick(&[1, 0, 2]),
            pick(&[0, 1, 1]),
            vec![without_a_line(&parts[0]), parts[1].clone(), parts[2].clone()],
            vec![parts[0].clone(), parts[1].clone(), without_a_line(&parts[2])],
        ] {
            let message = check_shards(inputs(&wrong), format).unwrap_err().to_string();
            // A row over several lines that has lost its last one is torn.
            let torn = message.contains("the last line has no end");
            assert!(torn || message.contains("is a shard missing, given twice"), "{message}");
            assert!(merged(&wrong, format).is_err());
        }
        let torn = vec![
            parts[0].clone(),
            parts[1].clone(),
            parts[2][..parts[2].len() - 1].to_vec(),
        ];
        for error in [
            check_shards(inputs(&torn), format).unwrap_err(),
            merged(&torn, format).unwrap_err(),
        ] {
            assert!(error.to_string().starts_with("2: the last line has no end"), "{error}");
        }
    }
    let parts = [b"{}\n".to_vec(), b"\n".to_vec()];
    let message = merged(&parts, Format::Jsonl).unwrap_err().to_string();
    assert!(
        message.starts_with("1:1: expected a record, found a blank line"),
        "{message}"
    );
    let table = [b"a,b\n1,2\n".to_vec(), b"a,b\n".to_vec()];
    let message = merged(&table, Format::Jsonl).unwrap_err().to_string();
    assert!(
        message.starts_with("0:1: expected a JSON object") && message.ends_with("--format csv or tsv says so"),
        "{message}"
    );
    // A row of a table may be of several lines; a person looks for lines.
    let parts = [b"a,b\n\"1\n2\",3\n\n".to_vec(), b"a,b\n".to_vec()];
    let message = merged(&parts, Format::Csv).unwrap_err().to_string();
    assert!(
        message.starts_with("0:4: expected a record, found a blank line"),
        "{message}"
    );
    let headers = [b"a,b\n".to_vec(), b"a,c\n".to_vec()];
    let message = merged(&headers, Format::Csv).unwrap_err().to_string();
    assert!(message.starts_with("1: expected the header of 0"), "{message}");
    assert!(matches!(
        merged(&[b"a,b\n".to_vec(), vec![]], Format::Csv),
        Err(MergeError::NoHeader { .. })
    ));
}

#[test]
fn the_binary_scores_shards_and_merges_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let rows: String = (0..150)
        .map(|i| format!("{i},\"patient {i}:\naspirin, then bleeding\",aspirin,bleeding\r\n"))
        .collect();
    let table = format!("id,text,drug,adr\r\n{rows}");
    std::fs::write(path("a.csv.gz"), gzip(table.as_bytes())).unwrap();
    std::fs::write(path("b.csv"), "id,text,drug,adr\nx,aspirin,aspirin,rash\n").unwrap();
    let score = |arguments: &[&str]| {
        let mut command = crag();
        command.args(["score", "--model", "demo", "-q"]).args(arguments);
        let output = command.args([path("a.csv.gz"), path("b.csv")]).output().unwrap();
        assert!(
            matches!(output.status.code(), Some(0 | 3)),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        output.stdout
    };
    let single = score(&[]);
    let names = ["1.csv", "2.csv.gz", "3.csv.zst"];
    for (name, shard) in names.into_iter().zip(["1/3", "2/3", "3/3"]) {
        let part = score(&["--shard", shard]);
        let packed = match name {
            "1.csv" => part,
            "2.csv.gz" => gzip(&part),
            _ => zstd(&part),
        };
        std::fs::write(path(name), packed).unwrap();
    }
    let merge = |names: &[&str]| {
        let output = crag()
            .arg("merge")
            .args(names.iter().map(|name| path(name)))
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), output.stdout, stderr)
    };
    let (code, output, stderr) = merge(&names);
    assert_eq!((code, output == single), (0, true), "{stderr}");
    for (names, expected_code, expected) in [
        (["1.csv", "2.csv.gz"].as_slice(), 1, "is a shard missing"),
        (&["1.csv", "3.csv.zst", "2.csv.gz"], 1, "out of order?"),
        (&["1.csv", "2.csv.gz", "1.csv"], 2, "the shard is given twice"),
        (&["1.csv", "missing.csv"], 1, "No such file"),
        (&["1.csv", "x.jsonl"], 2, "looks like csv"),
    ] {
        let (code, output, stderr) = merge(names);
        assert_eq!((code, output.len()), (expected_code, 0), "{names:?}: {stderr}");
        assert!(stderr.contains(expected), "{names:?}: {stderr}");
    }
    std::fs::write(path("2.csv.bz2"), &bzip2(b"text\n")[..20]).unwrap();
    let (code, _, stderr) = merge(&["1.csv", "2.csv.bz2"]);
    assert_eq!(code, 1);
    assert!(stderr.contains("the bzip2 data breaks off"), "{stderr}");
}

#[test]
fn a_shard_is_not_written_to_by_redirection() {
    let folder = tempfile::tempdir().unwrap();
    let shards = ["1.jsonl", "2.jsonl"].map(|name| folder.path().join(name));
    // As two shards deal 66 records.
    let records = |numbers: std::ops::Range<usize>| numbers.map(|i| format!("{{\"id\":{i}}}\n")).collect::<String>();
    let contents = [records(0..65), records(65..66)];
    for (shard, contents) in shards.iter().zip(&contents) {
        std::fs::write(shard, contents).unwrap();
    }
    let merge = |stdout: std::process::Stdio| {
        let mut command = process(&crag());
        command.arg("merge").args(&shards).stdout(stdout).output().unwrap()
    };
    let merged = merge(std::process::Stdio::piped());
    let said = String::from_utf8(merged.stderr).unwrap();
    assert!(merged.stdout == contents.concat().as_bytes(), "{said}");
    let appended = std::fs::OpenOptions::new().append(true).open(&shards[1]).unwrap();
    let refused = merge(appended.into());
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("<stdout>: the output is also an input"), "{said}");
    assert_eq!(std::fs::read_to_string(&shards[1]).unwrap(), contents[1]);
}

#[test]
fn merging_compares_what_the_shards_manifests_say() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    // Three shards of equal size, which numbers of records cannot tell apart.
    let lines = |of: &str| -> String {
        let line = |i| format!("{{\"id\":{i},\"text\":\"{of} {i}: aspirin\",\"drug\":\"aspirin\",\"adr\":\"{of}\"}}\n");
        (0..3 * 66).map(line).collect()
    };
    std::fs::write(path("pairs.jsonl"), lines("rash")).unwrap();
    std::fs::write(path("others.jsonl"), lines("pain")).unwrap();
    let score = |input: &str, output: &str, arguments: &[&str]| {
        let mut command = crag();
        command.args(["score", "--model", "demo", "-q", "-o"]).arg(path(output));
        assert_eq!(
            command.args(arguments).arg(path(input)).output().unwrap().status.code(),
            Some(0)
        );
    };
    score("pairs.jsonl", "single.jsonl", &[]);
    for (output, shard) in [("1.jsonl", "1/3"), ("2.jsonl.gz", "2/3"), ("3.jsonl", "3/3")] {
        score("pairs.jsonl", output, &["--shard", shard]);
    }
    score("pairs.jsonl", "strict.jsonl", &["--shard", "3/3", "--on-error", "fail"]);
    score(
        "pairs.jsonl",
        "threshold.jsonl",
        &["--shard", "3/3", "--threshold", "0.25"],
    );
    score("others.jsonl", "others-3.jsonl", &["--shard", "3/3"]);
    let (one, its_manifest) = (path("1.jsonl"), path("1.jsonl.manifest.json"));
    let (code, _, said) = run_in(
        folder.path(),
        &["merge", one.to_str().unwrap(), its_manifest.to_str().unwrap()],
    );
    assert!(
        code == 2 && said.contains("is a shard's manifest; leave manifests out"),
        "{said}"
    );
    let manifest = |name: &str| path(&format!("{name}.manifest.json"));
    let copy = |from: &str, to: &str, with_manifest: bool| {
        std::fs::copy(path(from), path(to)).unwrap();
        if with_manifest {
            std::fs::copy(manifest(from), manifest(to)).unwrap();
        }
    };
    copy("1.jsonl", "untold.jsonl", false);
    copy("3.jsonl", "changed.jsonl", true);
    let changed = std::fs::read_to_string(path("changed.jsonl"))
        .unwrap()
        .replacen("rash 1", "rush 1", 1);
    std::fs::write(path("changed.jsonl"), changed).unwrap();
    copy("3.jsonl", "damaged.jsonl", false);
    std::fs::write(manifest("damaged.jsonl"), "{").unwrap();
    copy("3.jsonl", "foreign.jsonl", false);
    std::fs::write(manifest("foreign.jsonl"), "{}").unwrap();

    let merge = |arguments: &[&str]| {
        let mut command = crag();
        command
            .arg("merge")
            .args(arguments.iter().filter(|argument| argument.starts_with("--")));
        let shards = arguments.iter().filter(|argument| !argument.starts_with("--"));
        let output = command.args(shards.map(|name| path(name))).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), output.stdout, stderr)
    };
    let single = std::fs::read(path("single.jsonl")).unwrap();
    for fitting in [
        ["1.jsonl", "2.jsonl.gz", "3.jsonl"],
        ["untold.jsonl", "2.jsonl.gz", "3.jsonl"],
        ["1.jsonl", "2.jsonl.gz", "strict.jsonl"],
    ] {
        let (code, output, stderr) = merge(&fitting);
        assert_eq!((code, output == single), (0, true), "{fitting:?}: {stderr}");
    }
    for (wrong, expected) in [
        (
            ["2.jsonl.gz", "1.jsonl", "3.jsonl"],
            "expected shard 1/3 in this place, found 2/3",
        ),
        (
            ["untold.jsonl", "3.jsonl", "2.jsonl.gz"],
            "expected shard 2/3 in this place, found 3/3",
        ),
        (["1.jsonl", "2.jsonl.gz", "threshold.jsonl"], " and is 0.25"),
        (
            ["1.jsonl", "2.jsonl.gz", "others-3.jsonl"],
            "its inputs have other lines",
        ),
        (["1.jsonl", "2.jsonl.gz", "changed.jsonl"], "bytes that were written"),
        (
            ["1.jsonl", "2.jsonl.gz", "single.jsonl"],
            "found the output of all lines",
        ),
        (
            ["1.jsonl", "2.jsonl.gz", "damaged.jsonl"],
            "damaged.jsonl.manifest.json: expected a manifest",
        ),
        (["1.jsonl", "2.jsonl.gz", "foreign.jsonl"], "it names no format"),
    ] {
        let (code, output, stderr) = merge(&wrong);
        assert_eq!((code, output.len()), (1, 0), "{wrong:?}: {stderr}");
        assert!(
            stderr.contains(expected) && stderr.lines().count() == 1,
            "{wrong:?}: {stderr}"
        );
    }
    // A link leads to the shard that the manifest lies beside.
    std::fs::create_dir(path("links")).unwrap();
    for name in ["1.jsonl", "2.jsonl.gz", "3.jsonl"] {
        std::os::unix::fs::symlink(path(name), path("links").join(name)).unwrap();
    }
    let (code, _, stderr) = merge(&["links/2.jsonl.gz", "links/1.jsonl", "links/3.jsonl"]);
    let expected = "expected shard 1/3 in this place, found 2/3";
    assert!(code == 1 && stderr.contains(expected), "{stderr}");
    let (code, _, stderr) = merge(&["1.jsonl", "2.jsonl.gz"]);
    assert!(
        code == 1 && stderr.contains("expected shard 1/2 in this place, found 1/3"),
        "{stderr}"
    );
    let (code, output, _) = merge(&["--ignore-manifests", "2.jsonl.gz", "1.jsonl", "3.jsonl"]);
    assert_eq!((code, output == single), (0, false));
}

/// Exit code, stdout and stderr.
fn run_in(folder: &std::path::Path, arguments: &[&str]) -> (i32, Vec<u8>, String) {
    let mut command = process(&crag());
    let output = command.args(arguments).current_dir(folder).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), output.stdout, stderr)
}

#[test]
fn a_table_s_shards_are_merged_as_one_whatever_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    // With as many rows, two shards of lines would fit too, headers and all.
    let rows: String = (0..64)
        .map(|i| format!("{i},aspirin then rash,aspirin,rash\n"))
        .collect();
    std::fs::write(path("pairs"), format!("id,text,drug,adr\n{rows}")).unwrap();
    let run = |arguments: &[&str]| run_in(folder.path(), arguments);
    for (out, more) in [
        ("single", &[][..]),
        ("part-1", &["--shard", "1/2"]),
        ("part-2", &["--shard", "2/2"]),
    ] {
        let score = ["score", "--model", "demo", "-q", "--format", "csv", "-o", out, "pairs"];
        assert_eq!(run(&[&score, more].concat()).0, 0);
    }
    let (code, merged, stderr) = run(&["merge", "part-1", "part-2"]);
    assert_eq!((code, &*stderr), (0, ""));
    assert!(merged == std::fs::read(path("single")).unwrap());
    let (code, _, stderr) = run(&["merge", "--format", "tsv", "part-1", "part-2"]);
    assert!(
        code == 2 && stderr.contains("--format: expected csv, the format of part-1"),
        "{stderr}"
    );
    // Without what the runs left, a line that is no object tells.
    let (code, _, stderr) = run(&["merge", "--ignore-manifests", "part-1", "part-2"]);
    assert!(
        code == 1 && stderr.contains("part-1:1: expected a JSON object"),
        "{stderr}"
    );
}

#[test]
fn shards_that_are_named_after_their_output_are_merged_into_it_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let rows: String = (0..300)
        .map(|i| format!("{i},\"{i}: aspirin,\nrash\",aspirin,rash\n"))
        .collect();
    std::fs::write(path("pairs.csv"), format!("id,text,drug,adr\n{rows}")).unwrap();
    let run = |arguments: &[&str]| {
        let (code, _, stderr) = run_in(folder.path(), arguments);
        (code, stderr)
    };
    let score = |out: &str, more: &[&str]| {
        let arguments = [&["score", "--model", "demo", "-q", "-o", out, "pairs.csv"], more].concat();
        assert_eq!(run(&arguments).0, 0);
    };
    score("single.csv.gz", &[]);
    let shards = ["out.csv.gz.1-of-2", "out.csv.gz.2-of-2"];
    score(shards[0], &["--shard", "1/2"]);
    score(shards[1], &["--shard", "2/2"]);
    let merge = |more: &[&str]| run(&[&["merge", "-o", "out.csv.gz"], more, &shards].concat());
    let unpacked = |name: &str| {
        let mut text = String::new();
        let mut input = Input::File(path(name)).open().unwrap();
        std::io::Read::read_to_string(&mut input, &mut text).unwrap();
        text
    };
    let (code, stderr) = merge(&[]);
    assert_eq!((code, &*stderr), (0, ""));
    assert_eq!(std::fs::read(path("out.csv.gz")).unwrap()[..2], [0x1f, 0x8b]);
    assert!(unpacked("out.csv.gz") == unpacked("single.csv.gz"));
    let (code, stderr) = merge(&[]);
    assert!(code == 2 && stderr.contains("--force replaces it"), "{stderr}");
    assert_eq!(merge(&["--force"]).0, 0);
    let (code, stderr) = run(&["merge", "-o", shards[0], "--force", shards[0], shards[1]]);
    assert!(code == 2 && stderr.contains("is also an input"), "{stderr}");
    assert!(unpacked("out.csv.gz") == unpacked("single.csv.gz"));
}
