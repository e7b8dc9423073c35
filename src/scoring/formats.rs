//! The formats that there are, each behind [`Records`]: JSONL is [`super::json`] and [`super::output`], tables are
//! [`super::table`].

use super::fields::{FieldMap, Format};
use super::json::JsonReader;
use super::output::{self, OutputKey};
use super::record::{Record, Rejection};
use super::records::{Answer, Records};
use super::rows::RowEnds;
use super::table::Table;

/// Records of `format` with their fields where `map` says.
pub(super) fn records(format: Format, map: &FieldMap, output: &OutputKey) -> Box<dyn Records> {
    match format {
        Format::Jsonl => Box::new(Jsonl {
            reader: JsonReader::new(map.clone(), output.clone()),
            output: output.clone(),
        }),
        Format::Csv | Format::Tsv => Box::new(Table::new(format, map.clone(), output.clone())),
    }
}

#[derive(Debug)]
struct Jsonl {
    reader: JsonReader,
    output: OutputKey,
}

impl Records for Jsonl {
    fn ends(&self) -> RowEnds {
        RowEnds::lines()
    }

    fn parse<'a>(&self, line: &'a [u8]) -> Result<Record<'a>, Rejection> {
        self.reader.parse(line)
    }

    fn write(&self, out: &mut Vec<u8>, line: &[u8], answer: &Answer<'_>) {
        match answer {
            Answer::Scored(scored) => output::write_scored(out, line, &self.output, scored),
            Answer::Error {
                error,
                spliceable: true,
                ..
            } => output::write_error(out, line, &self.output, error),
            Answer::Error { error, place, .. } => output::write_line_error(out, *place, &self.output, error),
        }
    }
}
