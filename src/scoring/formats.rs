//! The formats that there are, each behind [`RecordFormat`]: JSONL is [`super::json`], tables are [`super::table`].

use super::fields::FieldMap;
use super::format::Format;
use super::json::JsonReader;
use super::output_key::OutputKey;
use super::record_format::RecordFormat;
use super::table::Table;

/// Records of `format` with their fields where `map` says.
pub(super) fn record_format(format: Format, map: &FieldMap, output: &OutputKey) -> Box<dyn RecordFormat> {
    match format {
        Format::Jsonl => Box::new(JsonReader::new(map.clone(), output.clone())),
        Format::Csv | Format::Tsv => Box::new(Table::new(format, map.clone(), output.clone())),
    }
}
