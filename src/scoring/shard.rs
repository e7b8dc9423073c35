//! Parts of one run, for many machines: which lines are whose, and the parts' answers back into one output.
//!
//! Lines that are not blank are dealt in blocks of 64 to 127, counted over all inputs together, block after block:
//! texts that are equal are mostly near each other and stay together. A blank line goes with the block of the line
//! that would come next. Every record has one answer, so answers are dealt as the lines were.
//!
//! How long a block is depends on the number of shards, so that the sizes of shards say whether all are there: with
//! one length for all, the first three of four shards have the sizes of three of three.

use std::io::{self, BufRead, BufReader, Write};

use super::format::Format;
use super::lines::Content;
use super::rows::RowEnds;
use crate::files::{Input, are_too_many_open};

/// Fewest lines dealt together. Part of what a shard is: parts made with another number do not fit together.
const BLOCK_LINES: u64 = 64;
/// Most shards of one run.
const MOST_SHARDS: u64 = 1_000_000;

/// One of several parts of the inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// From 0.
    index: u64,
    count: u64,
}

impl Shard {
    /// `I/N`, as in `3/8`: the third of eight parts.
    pub fn parse(value: &str) -> Result<Self, String> {
        let expected = || "expected I/N, such as 3/8 for the third of eight parts".to_owned();
        let number = |text: &str| {
            text.parse::<u64>()
                .ok()
                .filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
        };
        let (part, count) = value.split_once('/').ok_or_else(expected)?;
        let (part, count) = (number(part).ok_or_else(expected)?, number(count).ok_or_else(expected)?);
        if count == 0 || count > MOST_SHARDS {
            return Err(format!("expected from 1 to {MOST_SHARDS} parts, found {count}"));
        }
        match part {
            1.. if part <= count => Ok(Self { index: part - 1, count }),
            _ => Err(format!("expected a part from 1 to {count}, found {part}")),
        }
    }

    /// How many of `total` records are this shard's.
    fn share(self, total: u64) -> u64 {
        let block = block_lines(self.count);
        let (rounds, rest) = (total / (block * self.count), total % (block * self.count));
        rounds * block + rest.saturating_sub(self.index * block).min(block)
    }
}

/// How many lines a block has where there are `count` shards.
fn block_lines(count: u64) -> u64 {
    BLOCK_LINES + count.saturating_sub(1) % BLOCK_LINES
}

impl std::fmt::Display for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.index + 1, self.count)
    }
}

/// Deals the lines of a run.
pub(super) struct Dealer {
    shard: Option<Shard>,
    /// Lines so far that were not blank.
    records: u64,
}

impl Dealer {
    pub fn new(shard: Option<Shard>) -> Self {
        Self { shard, records: 0 }
    }

    /// Whether the next line of the inputs, which no header is, is this shard's.
    pub fn is_ours(&mut self, content: &Content) -> bool {
        let number = self.records;
        self.records += u64::from(*content != Content::Blank);
        self.shard
            .is_none_or(|shard| number / block_lines(shard.count) % shard.count == shard.index)
    }
}

/// Why answers cannot be put back together.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    #[error("{name}: cannot be read")]
    Read { name: String, source: io::Error },
    #[error(
        "{name}: all shards are open at once, and this process may open no more files; let it with `ulimit -n {needed}`, \
         or merge on a system that does"
    )]
    TooManyOpen { name: String, needed: usize },
    #[error("cannot write the records")]
    Write { source: io::Error },
    #[error("{name}: the last line has no end; the shard is incomplete, score it again")]
    Torn { name: String },
    #[error("{name}:{line}: expected a record, found a blank line; is this an output of crag score?")]
    Blank { name: String, line: u64 },
    #[error(
        "{name}:{line}: expected a JSON object, as every line of crag score's output is, found none; of a table, --format csv or tsv says so"
    )]
    NoObject { name: String, line: u64 },
    #[error("{name}: expected a header row, found an empty file")]
    NoHeader { name: String },
    #[error("{name}: expected the header of {first}, found another; are these shards of one run?")]
    OtherHeader { name: String, first: String },
    #[error(
        "{name}: {total} records over {shards} shards would leave {expected} in shard {number}, found {found}; \
         is a shard missing, given twice, cut short or out of order?"
    )]
    Share {
        name: String,
        number: usize,
        shards: usize,
        total: u64,
        expected: u64,
        found: u64,
    },
    #[error(
        "{name}: goes on after {short} has ended before its turn was over; \
         is a shard missing, given twice, cut short or out of order?"
    )]
    GoesOn { name: String, short: String },
}

/// The rows of one shard's output, each with its line end.
struct Rows {
    name: String,
    reader: BufReader<crate::files::OpenInput>,
    format: Format,
    ends: RowEnds,
    row: Vec<u8>,
    /// Line ends before the row.
    lines: u64,
}

/// What is read ahead of all shards together, and of each at most and at least.
const ALL_BUFFERS_BYTES: usize = 64 << 20;
const BUFFER_BYTES: (usize, usize) = (128 * 1024, 8 * 1024);

impl Rows {
    /// `shards`: how many are open at once.
    fn open(input: Input, format: Format, shards: usize) -> Result<Self, MergeError> {
        let (most, least) = BUFFER_BYTES;
        let buffer = (ALL_BUFFERS_BYTES / shards.max(1)).clamp(least, most);
        let name = input.name();
        match input.open() {
            Ok(open) => Ok(Self {
                name,
                reader: BufReader::with_capacity(buffer, open),
                format,
                ends: RowEnds::of(format),
                row: Vec::new(),
                lines: 0,
            }),
            Err(source) => Err(MergeError::Read { name, source }),
        }
    }

    /// The next row, none at the end.
    fn next(&mut self) -> Result<Option<&[u8]>, MergeError> {
        self.lines += memchr::memchr_iter(b'\n', &self.row).count() as u64;
        self.row.clear();
        loop {
            let buffer = self.reader.fill_buf().map_err(|source| MergeError::Read {
                name: self.name.clone(),
                source,
            })?;
            if buffer.is_empty() {
                return match self.row.is_empty() {
                    true => Ok(None),
                    false => Err(MergeError::Torn {
                        name: self.name.clone(),
                    }),
                };
            }
            let end = self.ends.find(buffer);
            let length = end.map_or(buffer.len(), |end| end + 1);
            self.row.extend_from_slice(&buffer[..length]);
            self.reader.consume(length);
            if end.is_some() {
                break;
            }
        }
        let (name, line) = (|| self.name.clone(), self.lines + 1);
        if self.ends.are_blank(&self.row) {
            return Err(MergeError::Blank { name: name(), line });
        }
        if self.format == Format::Jsonl && !self.row.trim_ascii_start().starts_with(b"{") {
            return Err(MergeError::NoObject { name: name(), line });
        }
        Ok(Some(&self.row))
    }

    /// Opens all shards' outputs; the header, where the format has one, has been read from each.
    fn open_all(inputs: Vec<Input>, format: Format) -> Result<(Vec<Self>, Vec<u8>), MergeError> {
        let mut shards = Vec::with_capacity(inputs.len());
        let mut header = None;
        // The standard streams, the output, and what watches for signals.
        let needed = inputs.len() + 32;
        let shards_at_once = inputs.len();
        for input in inputs {
            let mut rows = Self::open(input, format, shards_at_once).map_err(|error| match error {
                MergeError::Read { name, source } if are_too_many_open(&source) => {
                    MergeError::TooManyOpen { name, needed }
                }
                error => error,
            })?;
            if format != Format::Jsonl {
                let name = rows.name.clone();
                let Some(row) = rows.next()? else {
                    return Err(MergeError::NoHeader { name });
                };
                let (first, expected) = header.get_or_insert_with(|| (name.clone(), row.to_vec()));
                if row != expected {
                    return Err(MergeError::OtherHeader {
                        name,
                        first: first.clone(),
                    });
                }
            }
            shards.push(rows);
        }
        Ok((shards, header.map(|(_, row)| row).unwrap_or_default()))
    }
}

/// Whether the outputs of shards, given in order, have as many records as shards of one run have. Reads all of them.
///
/// What it cannot see: shards of equal size in each other's place, one shard alone, and a last block that is cut
/// short at the end of a line in the shard that has the run's last record.
pub fn check_shards(inputs: Vec<Input>, format: Format) -> Result<(), MergeError> {
    let count = inputs.len();
    let (shards, _) = Rows::open_all(inputs, format)?;
    let mut found = Vec::with_capacity(count);
    for mut shard in shards {
        let mut records = 0;
        while shard.next()?.is_some() {
            records += 1;
        }
        found.push((shard.name, records));
    }
    let total = found.iter().map(|(_, records)| records).sum();
    for (index, (name, found)) in found.into_iter().enumerate() {
        let shard = Shard {
            index: index as u64,
            count: count as u64,
        };
        let expected = shard.share(total);
        if found != expected {
            return Err(MergeError::Share {
                name,
                number: index + 1,
                shards: count,
                total,
                expected,
                found,
            });
        }
    }
    Ok(())
}

/// Writes the answers of all shards, given in order, as the run without shards has them. Returns their number.
///
/// Errors, after having written what fits, where the shards do not fit together as far as [`check_shards`] can see.
pub fn merge(inputs: Vec<Input>, format: Format, output: &mut dyn Write) -> Result<u64, MergeError> {
    let write = |source| MergeError::Write { source };
    let (mut shards, header) = Rows::open_all(inputs, format)?;
    output.write_all(&header).map_err(write)?;
    let block = block_lines(shards.len() as u64);
    let mut total = 0;
    let short = 'blocks: loop {
        for (i, shard) in shards.iter_mut().enumerate() {
            for _ in 0..block {
                match shard.next()? {
                    Some(row) => output.write_all(row).map_err(write)?,
                    None => break 'blocks i,
                }
                total += 1;
            }
        }
        if shards.is_empty() {
            return Ok(0);
        }
    };
    let short_name = shards[short].name.clone();
    for (i, shard) in shards.iter_mut().enumerate() {
        if i != short && shard.next()?.is_some() {
            return Err(MergeError::GoesOn {
                name: shard.name.clone(),
                short: short_name,
            });
        }
    }
    output.flush().map_err(write)?;
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shards_are_named_from_one() {
        assert_eq!(Shard::parse("3/8"), Ok(Shard { index: 2, count: 8 }));
        assert_eq!(Shard::parse("1/1").unwrap().to_string(), "1/1");
        for value in [
            "",
            "3",
            "0/8",
            "9/8",
            "1/0",
            "-1/2",
            "+1/2",
            "a/b",
            "1/2/3",
            "1/99999999",
        ] {
            assert!(Shard::parse(value).is_err(), "{value}");
        }
    }

    fn shards(count: u64) -> impl Iterator<Item = Shard> {
        (0..count).map(move |index| Shard { index, count })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_line_is_dealt_to_one_shard_and_shares_are_what_is_dealt(
            blank in prop::collection::vec(any::<bool>(), 0..1000),
            count in 1u64..9,
        ) {
            let contents: Vec<Content> = blank
                .iter()
                .map(|&blank| if blank { Content::Blank } else { Content::TooLong { bytes: 1, lines: 1 } })
                .collect();
            let records = blank.iter().filter(|blank| !**blank).count() as u64;
            let mut owners = vec![0; contents.len()];
            for shard in shards(count) {
                let mut dealer = Dealer::new(Some(shard));
                let mut ours = 0;
                for (content, owners) in contents.iter().zip(&mut owners) {
                    if dealer.is_ours(content) {
                        *owners += 1;
                        ours += u64::from(*content != Content::Blank);
                    }
                }
                prop_assert_eq!(ours, shard.share(records));
            }
            prop_assert!(owners.iter().all(|&owners| owners == 1));
        }
    }
}
