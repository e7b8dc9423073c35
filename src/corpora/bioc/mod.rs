//! BioC, as XML and as JSON: collections of documents of passages with annotations and relations.
//!
//! [`xml`] and [`json`] cut a stream into documents, so that a malformed one costs itself alone, and read each into the
//! same plain structures; [`structures`] makes [`RawDocument`]s of these. Annotations count their offsets from the document,
//! in a unit that [`super::resolve`] finds out. Text may stand in a passage or in its sentences.
//!
//! Where identifiers are: an annotation's infons `identifier`, `MESH`, `OMIM` and others of `structures::CONCEPT_KEYS`.
//! Relations name concepts in infons (`Chemical` and `Disease` as in BC5CDR, `entity1`/`entity2` as in BioRED,
//! `role1`/`role2` as in PubTator3), else annotations in nodes. Their type is the infon `relation` or `type`.

mod json;
mod structures;
mod values;
mod xml;

use super::document::{Documents, RawDocument};
use super::report::{CorpusError, Place, Problem, Reason, Report, not_utf8, too_large};
use super::source::Source;

pub struct Reader {
    source: Source,
    cutter: Option<Cutter>,
    finished: bool,
    documents: u64,
}

enum Cutter {
    Xml(xml::Cutter),
    Json(json::Cutter),
}

/// What a cutter found next.
#[derive(Debug, PartialEq, Eq)]
enum Piece {
    /// A document of so many bytes in hand.
    Document(usize),
    /// So many bytes in hand that are the beginning of a document, which something else cut short.
    Torn(usize),
    /// A document of more bytes than the limit. It has been read past.
    TooLarge,
    /// Something else than a document where one should be. It has been read past.
    Other(String),
}

impl Reader {
    pub fn new(source: Source) -> Self {
        Self {
            source,
            cutter: None,
            finished: false,
            documents: 0,
        }
    }
}

impl Documents for Reader {
    fn next_document(&mut self, max_bytes: usize, report: &mut dyn Report) -> Result<Option<RawDocument>, CorpusError> {
        if self.finished {
            return Ok(None);
        }
        let cutter = match &mut self.cutter {
            Some(cutter) => cutter,
            unknown => {
                let expected = "BioC: XML (\"<\") or JSON (\"{\" or \"[\")";
                let first = self.source.begin(b"", expected)?;
                let place = self.source.place();
                let refuse = |message| Err(Problem::new(place, Reason::WrongFormat, message));
                let cutter = match first {
                    Err(problem) => Err(problem),
                    Ok(Some(b'<')) => match xml::encoding(&mut self.source)? {
                        None => Ok(Cutter::Xml(xml::Cutter::default())),
                        Some(encoding) => {
                            let mut message = format!(
                                "expected UTF-8, found the declared encoding {encoding}; convert it first, and what it declares"
                            );
                            if xml::is_name_of_encoding(&encoding) {
                                message += &format!(": iconv -f {encoding} -t UTF-8 FILE | sed '1s/{encoding}/UTF-8/'");
                            }
                            refuse(message)
                        }
                    },
                    Ok(Some(b'{' | b'[')) => Ok(Cutter::Json(json::Cutter::default())),
                    Ok(Some(other)) => refuse(format!(
                        "expected {expected}, found {:?} at the beginning",
                        char::from(other)
                    )),
                    Ok(None) => {
                        self.finished = true;
                        return Ok(None);
                    }
                };
                match cutter {
                    Ok(cutter) => unknown.insert(cutter),
                    Err(problem) => {
                        self.finished = true;
                        report.report(problem)?;
                        return Ok(None);
                    }
                }
            }
        };
        loop {
            let piece = match cutter {
                Cutter::Xml(cutter) => cutter.next(&mut self.source, max_bytes)?,
                Cutter::Json(cutter) => cutter.next(&mut self.source, max_bytes)?,
            };
            let Some((piece, line)) = piece else {
                self.finished = true;
                if self.documents == 0 && matches!(cutter, Cutter::Xml(cutter) if !cutter.saw_collection) {
                    let message = "expected BioC, found XML without <document> and <collection>";
                    report.report(Problem::new(self.source.place_at(1), Reason::WrongFormat, message))?;
                }
                return Ok(None);
            };
            self.documents += 1;
            let place = self.source.place_at(line);
            let (length, torn) = match piece {
                Piece::Document(length) => (length, false),
                Piece::Torn(length) => (length, true),
                Piece::TooLarge => {
                    report.report(Problem::new(place, Reason::TooLarge, too_large("document", max_bytes)))?;
                    continue;
                }
                Piece::Other(message) => {
                    report.report(Problem::new(place, Reason::MalformedDocument, message))?;
                    continue;
                }
            };
            let bytes = &self.source.bytes()[..length];
            let parsed = match std::str::from_utf8(bytes) {
                Err(error) => Err((String::new(), Reason::InvalidUtf8, not_utf8(bytes, error))),
                Ok(text) => {
                    let (mut document, error) = match cutter {
                        Cutter::Xml(_) => xml::parse(text),
                        Cutter::Json(_) => json::parse(text),
                    };
                    let error = error.or_else(|| {
                        torn.then(|| {
                            "expected the end of the document, found another or the end of the file".to_owned()
                        })
                    });
                    match error {
                        Some(message) => Err((std::mem::take(&mut document.id), Reason::MalformedDocument, message)),
                        None => document
                            .into_raw(place.clone(), report)?
                            .map_err(|message| (String::new(), Reason::MalformedDocument, message)),
                    }
                }
            };
            self.source.consume(length);
            match parsed {
                Ok(document) => return Ok(Some(document)),
                Err((document, reason, message)) => {
                    report.report(Problem::new(Place { document, ..place }, reason, message))?;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
