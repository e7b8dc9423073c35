//! `crag merge`: the answers of all shards of one run, in order, as one output.

use std::io;
use std::path::{Path, PathBuf};

use super::inputs::{FormatArg, format_of, given_twice, input, is_regular, is_stdin, named_otherwise};
use super::signals::SignalWatch;
use super::whole_output::WholeOutputArgs;
use super::{Outcome, UsageError, console, manifest};
use crate::files::{Input, allow_open_files};
use crate::scoring::{
    EvidenceError, Format, MergeError, ShardEvidence, check_evidence, check_shards, merge, stated_format,
};

/// Which shards to put together.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
What comes out is, byte for byte, what the run without --shard gives. Shards that do not fit together are an error \
before anything is written (of pipes, which can be read only once, when it shows). Where SHARD.manifest.json lies beside a shard, as score -o leaves it, it is compared: the \
same lines, model, settings, kernels and version as the others', this shard in this place, and the bytes that were \
written. Without one, only the numbers of records can tell that a shard is missing, cut short or out of order.

Examples:
  for i in 1 2 3; do crag score --shard $i/3 -o part-$i.jsonl pairs.jsonl; done
  crag merge part-1.jsonl part-2.jsonl part-3.jsonl -o scored.jsonl

Exit codes: 0 all put together; 1 the shards do not fit or cannot be read; 2 usage; 11 another run is writing OUT; \
129, 130, 143 interrupted.")]
pub struct MergeArgs {
    /// What `crag score --shard I/N` wrote, for I from 1 to N in order; gzip, zstd and bzip2 are unpacked
    #[arg(value_name = "SHARD", required = true)]
    shards: Vec<PathBuf>,

    /// Format of the shards [default: what their manifests say, else csv or tsv where their names end so (also .csv.gz,
    /// .csv.1-of-3), else jsonl]
    #[arg(long, value_name = "FORMAT")]
    format: Option<FormatArg>,

    #[command(flatten)]
    output: WholeOutputArgs,

    /// Do not compare what the shards' manifests say
    #[arg(long)]
    ignore_manifests: bool,
}

/// `config`: the file that some of the settings are from, if one was named.
pub fn run(args: MergeArgs, config: Option<PathBuf>) -> anyhow::Result<Outcome> {
    let is_manifest = |path: &&PathBuf| {
        let is_named_so = path.to_string_lossy().ends_with(".manifest.json") && is_regular(path);
        is_named_so && std::fs::read(path).is_ok_and(|bytes| manifest::is_manifest(&bytes))
    };
    if let Some(manifest) = args.shards.iter().find(is_manifest) {
        let message = format!("{}: is a shard's manifest; leave manifests out", manifest.display());
        return Err(UsageError(message).into());
    }
    let are_regular = args.shards.iter().all(|path| is_regular(path));
    let evidence = match are_regular && !args.ignore_manifests {
        true => args.shards.iter().map(evidence).collect::<Result<_, _>>()?,
        false => Vec::new(),
    };
    let format = format(&args, &evidence)?;
    if let Some(remark) = args.output.path().and_then(|path| named_otherwise(path, format)) {
        console::warn(&remark);
    }
    if args.shards.iter().any(|path| is_stdin(path)) {
        return Err(UsageError("expected files, found - (stdin)".to_owned()).into());
    }
    if let Some(path) = given_twice(&args.shards)? {
        return Err(UsageError(format!("{}: the shard is given twice", path.display())).into());
    }
    let inputs = || args.shards.iter().map(|path| input(path)).collect::<Vec<_>>();
    // All shards are open at once.
    allow_open_files();
    let read: Vec<Input> = inputs().into_iter().chain(config.map(Input::File)).collect();
    let mut output = args.output.open(&read, &*SignalWatch::start()?)?;
    if are_regular {
        check_evidence(&evidence).map_err(|error| {
            let way_out = match error {
                EvidenceError::OtherShard { .. } => "give all shards in their order, as ls -v lists them",
                _ => WAY_OUT,
            };
            anyhow::anyhow!("{:#}; {way_out}", anyhow::Error::new(error))
        })?;
        // Pipes can be read only once; merge itself finds most of it, only later.
        check_shards(inputs(), format)?;
    }
    match merge(inputs(), format, &mut output) {
        Ok(_) => output.finish().map(|()| Outcome::Complete),
        Err(MergeError::Write { source }) if source.kind() == io::ErrorKind::BrokenPipe => {
            output.abandon();
            Ok(Outcome::ClosedPipe)
        }
        Err(error) => Err(error.into()),
    }
}

/// The format that the shards' runs state, else the one that is named or that names say.
fn format(args: &MergeArgs, evidence: &[Option<ShardEvidence>]) -> Result<Format, UsageError> {
    let Some((stated, shard)) = stated_format(evidence) else {
        return format_of(args.format, &args.shards);
    };
    match args.format {
        Some(named) if stated != named.into() => Err(UsageError(format!(
            "--format: expected {}, the format of {} (so says {})",
            stated.name(),
            shard.path.display(),
            shard.source.display()
        ))),
        _ => Ok(stated),
    }
}

const WAY_OUT: &str = "--ignore-manifests goes by the shards alone";

/// What the manifest of a shard says of its run, if it has one: where the shard is, which a link may lead to, or else beside
/// the link.
fn evidence(path: impl AsRef<Path>) -> anyhow::Result<Option<ShardEvidence>> {
    let path = path.as_ref();
    let target = path.is_symlink().then(|| path.canonicalize().ok()).flatten();
    for source in target.as_deref().into_iter().chain([path]).map(manifest::beside) {
        let evidence = manifest::evidence(&source).map_err(|error| anyhow::anyhow!("{error:#}; {WAY_OUT}"))?;
        if let Some(evidence) = evidence {
            return Ok(Some(ShardEvidence {
                path: path.to_owned(),
                source,
                evidence,
            }));
        }
    }
    Ok(None)
}
