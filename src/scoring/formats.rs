//! The formats that there are, each behind [`RecordFormat`]: JSONL is [`super::json`] and [`super::output`], tables are
//! [`super::table`].

use super::error::ErrorCode;
use super::fields::FieldMap;
use super::format::Format;
use super::json::JsonReader;
use super::output::{self, OutputKey};
use super::record::{Record, Rejection};
use super::record_format::{Answer, RecordFormat};
use super::rows::RowEnds;
use super::table::Table;

/// Records of `format` with their fields where `map` says.
pub(super) fn record_format(format: Format, map: &FieldMap, output: &OutputKey) -> Box<dyn RecordFormat> {
    match format {
        Format::Jsonl => Box::new(JsonReader::new(map.clone(), output.clone())),
        Format::Csv | Format::Tsv => Box::new(Table::new(format, map.clone(), output.clone())),
    }
}

impl RecordFormat for JsonReader {
    fn ends(&self) -> RowEnds {
        RowEnds::lines()
    }

    fn parse<'a>(&self, line: &'a [u8]) -> Result<Record<'a>, Rejection> {
        JsonReader::parse(self, line)
    }

    fn write(&self, out: &mut Vec<u8>, line: &[u8], answer: &Answer<'_>) {
        let key = self.output();
        match answer {
            Answer::Scored(scored) => output::write_scored(out, line, key, scored),
            Answer::Error {
                error,
                spliceable: true,
                ..
            } => output::write_error(out, line, key, error),
            Answer::Error { error, place, .. } => {
                // Of all lines that cannot take their error, only one whose key is taken is an object.
                let record = (error.code == ErrorCode::KeyConflict).then_some(line);
                output::write_line_error(out, *place, key, error, record);
            }
        }
    }
}
