//! `crag check`: what is wrong with records, without a model.

use std::io::{self, Write as _};

use serde::Serialize;

use super::console::{self, Records};
use super::progress::{ProgressArgs, Watched};
use super::records::RecordArgs;
use super::{Outcome, manifest};
use crate::files::{Input, refuse_stdout};
use crate::scoring::{self, Counts, LineError, Position, Progress, ScoreError, Sink};
use crate::words::{counted, visible};

/// What to check.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Checks what `crag score` checks before a model sees the line: that it is one JSON object with the fields it needs, \
that entities occur in their texts and spans hold them. Only a model can find texts that are too long for it. \
Flags that say how records are read, and keys that answers would take, are those of `crag score`. \
Problems go to stdout as FILE:LINE: CODE: MESSAGE, counts to stderr; memory is bounded whatever the size.

Exit codes: 0 nothing found; 1 could not run or go on; 2 usage; 3 there are problems; 141 whoever read stdout stopped reading.")]
pub struct CheckArgs {
    #[command(flatten)]
    records: RecordArgs,

    #[command(flatten)]
    progress: ProgressArgs,

    /// Print each problem as a JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: CheckArgs) -> anyhow::Result<Outcome> {
    let inputs = args.records.resolve()?;
    let options = args.records.options(&inputs);
    let sizes = inputs.sizes();
    let inputs = inputs.open();
    refuse_stdout(&inputs)?;
    let names: Vec<String> = inputs.iter().map(Input::name).collect();
    let mut problems = Problems {
        names: &names,
        json: args.json,
        out: io::BufWriter::new(Records::lock()),
    };
    let meter = args.progress.start(sizes, &options.gauge, true);
    let mut sink = Watched {
        inner: &mut problems,
        meter: &meter,
    };
    let counts = scoring::check(inputs, &mut sink, args.records.missing_entity(), &options);
    drop(meter);
    match counts {
        Ok(counts) => {
            console::report("summary", &told(&counts), manifest::numbers(&counts));
            Ok(Outcome::of(&counts))
        }
        Err(ScoreError::ClosedPipe) => Ok(Outcome::ClosedPipe),
        Err(error) => Err(error.into()),
    }
}

fn told(counts: &Counts) -> String {
    let mut text = format!(
        "checked {} in {:.1} s: ",
        counted(counts.records(), "line", "lines"),
        counts.elapsed.as_secs_f64()
    );
    match counts.errors() {
        0 => text += "nothing found",
        errors => text += &format!("problems with {errors}: {}", counts.errors_by_code()),
    }
    if counts.warned > 0 {
        text += &format!("; with warnings: {}", counts.warned);
    }
    if counts.blank > 0 {
        text += &format!("; blank lines: {}", counts.blank);
    }
    text
}

/// Prints what is wrong, and drops the answers.
struct Problems<'n> {
    names: &'n [String],
    json: bool,
    out: io::BufWriter<Records>,
}

#[derive(Serialize)]
struct Problem<'p> {
    file: &'p str,
    line: u64,
    code: &'static str,
    message: &'p str,
}

impl Sink for Problems<'_> {
    fn answer(&mut self, _: &[u8], _: Progress<'_>) -> io::Result<()> {
        Ok(())
    }

    fn rejected(&mut self, line: &Position, error: &LineError) -> io::Result<()> {
        let problem = Problem {
            file: &self.names[line.source],
            line: line.line,
            code: error.code.name(),
            message: &error.message,
        };
        if self.json {
            serde_json::to_writer(&mut self.out, &problem)?;
            return self.out.write_all(b"\n");
        }
        let Problem {
            file,
            line,
            code,
            message,
        } = problem;
        // A name may hold what a terminal obeys.
        writeln!(self.out, "{}:{line}: {code}: {message}", visible(file))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn suspend(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
