//! BioC XML.
//!
//! The cutter looks for `<document>` and `</document>`, or `<bioc:document>` and so on, outside of comments, CDATA sections
//! and processing instructions. Each document is then read by itself. Entities that a DTD defines are not expanded: nothing that a
//! file declares can grow in memory or name another file.

use quick_xml::Reader;
use quick_xml::XmlVersion;
use quick_xml::events::{BytesStart, Event};

use super::Piece;
use super::structures::{BiocAnnotation, BiocDocument, BiocLocation, BiocNode, BiocPassage, BiocRelation};
use crate::corpora::report::CorpusError;
use crate::corpora::source::Source;
use crate::words::quoted;

/// Longest prefix of a namespace that is known as one (`bioc` in `<bioc:document>`).
const MOST_PREFIX: usize = 32;

/// Longest markup that has to be in hand to be told: `</`, a prefix and its colon, `collection` and the byte after it.
const LOOKAHEAD: usize = 14 + MOST_PREFIX;
/// No tag that means something here is longer; the end of one is looked for no further.
const LONGEST_TAG: usize = 16 << 10;
const COLLECTION_END: &str = "</collection>";

#[derive(Debug, Default)]
pub struct Cutter {
    /// A `<collection>` was there: a file without documents is an empty collection, not another format.
    pub saw_collection: bool,
    /// What has to come before the stream may end: the end of a collection, or of markup that it ended in.
    awaited: Option<&'static str>,
    /// The namespace prefix of a collection's first document; an element of it that has another is none.
    prefix: Option<Vec<u8>>,
}

enum Mark {
    Open(usize),
    /// After the tag's end.
    Close(usize),
    End,
    /// More than the limit, and no mark yet: how far was looked.
    TooLarge,
}

impl Cutter {
    /// The next piece and the line where it begins.
    pub fn next(&mut self, source: &mut Source, max_bytes: usize) -> Result<Option<(Piece, u64)>, CorpusError> {
        match self.find(source, 0, None)? {
            Mark::Open(at) => source.consume(at),
            // A stray end: the document's beginning is missing, and what it held with it.
            Mark::Close(at) => {
                source.consume(at);
                let message = "expected <document>, found </document>".to_owned();
                return Ok(Some((Piece::Other(message), source.line())));
            }
            Mark::End | Mark::TooLarge => {
                let message = |awaited| format!("expected {awaited}, found the end of the file");
                let line = source.line();
                // Markup that does not end has been told of, and is not to be found again.
                source.consume(source.bytes().len());
                return Ok(self
                    .awaited
                    .take()
                    .map(|awaited| (Piece::Other(message(awaited)), line)));
            }
        }
        let line = source.line();
        let piece = match self.find(source, "<document".len() + 1, Some(max_bytes))? {
            Mark::Close(at) if at <= max_bytes => Piece::Document(at),
            Mark::Open(at) if at <= max_bytes => Piece::Torn(at),
            Mark::Close(at) | Mark::Open(at) => {
                source.consume(at);
                Piece::TooLarge
            }
            Mark::End => {
                // That the document ends too soon is enough to say.
                self.awaited = None;
                Piece::Torn(source.bytes().len())
            }
            Mark::TooLarge => {
                match self.find(source, "<document".len() + 1, None)? {
                    Mark::Close(at) | Mark::Open(at) => source.consume(at),
                    Mark::End | Mark::TooLarge => {}
                }
                Piece::TooLarge
            }
        };
        Ok(Some((piece, line)))
    }

    /// The next mark at or after `at`. With a limit the bytes in hand stay, without one they are let go.
    fn find(&mut self, source: &mut Source, mut at: usize, limit: Option<usize>) -> Result<Mark, CorpusError> {
        // What ends the comment, section or instruction that `at` is in.
        let mut inside: Option<&'static [u8]> = None;
        let mut at_end = false;
        loop {
            let bytes = source.bytes();
            at = at.min(bytes.len());
            let rest = &bytes[at..];
            if let Some(end) = inside {
                if let Some(found) = memchr::memmem::find(rest, end) {
                    at += found + end.len();
                    inside = None;
                    continue;
                }
                at = at.max(bytes.len().saturating_sub(end.len() - 1));
            } else if let Some(found) = memchr::memchr(b'<', rest) {
                at += found;
                let rest = &bytes[at..bytes.len().min(at + LONGEST_TAG)];
                if rest.len() >= LOOKAHEAD || at_end || memchr::memchr(b'>', rest).is_some() {
                    let is_end = rest.starts_with(b"</");
                    let (prefix, name) = named(&rest[if is_end { 2 } else { 1 }..]);
                    let is_document = name == b"document" && self.prefix.as_ref().is_none_or(|known| known == prefix);
                    let is_collection = name == b"collection";
                    if is_document && !is_end {
                        self.prefix.get_or_insert_with(|| prefix.to_owned());
                        return Ok(Mark::Open(at));
                    } else if is_collection && !is_end {
                        if let Some(end) = memchr::memchr(b'>', rest) {
                            self.saw_collection = true;
                            self.prefix = None;
                            // One that ends where it begins is empty.
                            self.awaited = (rest[end - 1] != b'/').then_some(COLLECTION_END);
                            at += end + 1;
                            continue;
                        }
                        if at_end {
                            self.awaited = Some(">");
                            return Ok(Mark::End);
                        }
                    } else if is_document {
                        if let Some(end) = memchr::memchr(b'>', rest) {
                            return Ok(Mark::Close(at + end + 1));
                        }
                        if at_end {
                            self.awaited = Some(">");
                            return Ok(Mark::End);
                        }
                    } else {
                        let openings: [(&[u8], &'static [u8]); 3] =
                            [(b"<!--", b"-->"), (b"<![CDATA[", b"]]>"), (b"<?", b"?>")];
                        if is_collection {
                            self.awaited = None;
                        }
                        let opening = openings.iter().find(|(start, _)| rest.starts_with(start));
                        inside = opening.map(|(_, end)| *end);
                        at += opening.map_or(1, |(start, _)| start.len());
                        continue;
                    }
                }
            } else {
                at = bytes.len();
            }
            if at_end {
                if let Some(end) = inside {
                    self.awaited = std::str::from_utf8(end).ok();
                }
                return Ok(Mark::End);
            }
            match limit {
                Some(limit) if at > limit => return Ok(Mark::TooLarge),
                Some(_) => {}
                None => {
                    source.consume(at);
                    at = 0;
                }
            }
            // A tag whose end does not come.
            if source.bytes().len() - at >= LONGEST_TAG {
                at += 1;
                continue;
            }
            at_end = !source.more()?;
        }
    }
}

/// The prefix and the name that markup begins with behind its `<` or `</`; no name where none ends here.
fn named(markup: &[u8]) -> (&[u8], &[u8]) {
    let length = markup
        .iter()
        .take(LOOKAHEAD)
        .position(|byte| byte.is_ascii_whitespace() || b">/<".contains(byte));
    let length = length.filter(|&length| markup[length] != b'<').unwrap_or(0);
    let name = &markup[..length];
    match memchr::memchr(b':', name) {
        Some(colon) if colon <= MOST_PREFIX => (&name[..colon], &name[colon + 1..]),
        _ => (b"", name),
    }
}

/// The declared encoding, if it is none of UTF-8 and its subset ASCII. What declares UTF-16 in bytes that can be read here has been
/// converted since.
pub fn encoding(source: &mut Source) -> Result<Option<String>, CorpusError> {
    while source.bytes().len() < 200 && source.more()? {}
    let head = &source.bytes()[..source.bytes().len().min(200)];
    let Some(declaration) = head.strip_prefix(b"<?xml") else {
        return Ok(None);
    };
    let declaration = String::from_utf8_lossy(declaration);
    let declaration = declaration.split("?>").next().unwrap_or_default();
    let value = declaration.split_once("encoding").and_then(|(_, rest)| {
        let rest = rest.trim_start().strip_prefix('=')?.trim_start();
        let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        rest[1..].split_once(quote).map(|(value, _)| value.to_owned())
    });
    let is_read = |value: &String| {
        let value = value.to_ascii_lowercase();
        value.starts_with("utf-16") || ["utf-8", "utf8", "us-ascii", "ascii"].contains(&value.as_str())
    };
    Ok(value.filter(|value| !is_read(value)))
}

/// Whether `name` is what XML lets an encoding be called, so that it may stand in a command for a shell.
pub fn is_name_of_encoding(name: &str) -> bool {
    let is_further = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    name.starts_with(|first: char| first.is_ascii_alphabetic()) && name.bytes().all(is_further)
}

/// Reads one document; what could be read of it, and what was wrong.
pub fn parse(text: &str) -> (BiocDocument, Option<String>) {
    let mut builder = Builder::default();
    let mut reader = Reader::from_str(text);
    loop {
        let error = match reader.read_event() {
            Ok(Event::Start(start)) => builder.start(&start),
            Ok(Event::Empty(start)) => builder.start(&start).and_then(|()| builder.end()),
            Ok(Event::End(_)) => builder.end(),
            Ok(Event::Text(text)) => builder.text(&text.xml_content(XmlVersion::Implicit1_0)),
            Ok(Event::CData(text)) => builder.text(&text.xml_content(XmlVersion::Implicit1_0)),
            Ok(Event::GeneralRef(reference)) => match reference.resolve_char_ref() {
                Ok(Some(character)) => builder.text(character.encode_utf8(&mut [0; 4])),
                Ok(None) => match quick_xml::escape::resolve_xml_entity(&reference) {
                    Some(text) => builder.text(text),
                    None => Err(format!(
                        "expected a character or one of XML's own entities, found {}",
                        quoted(&format!("&{};", &*reference))
                    )),
                },
                Err(error) => Err(error.to_string()),
            },
            Ok(Event::Comment(_) | Event::PI(_) | Event::Decl(_) | Event::DocType(_)) => Ok(()),
            Ok(Event::Eof) => match builder.open.is_empty() {
                true => return (builder.document, None),
                false => Err("expected </document>, found the end".to_owned()),
            },
            Err(error) => Err(error.to_string()),
        };
        if let Err(message) = error {
            let message = format!(
                "expected a BioC document: {message}, at byte {} of it",
                reader.buffer_position()
            );
            return (builder.document, Some(message));
        }
    }
}

/// What an element is, which depends on the one that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    Document,
    Id,
    Passage,
    Sentence,
    Offset,
    Text,
    Annotation,
    Relation,
    Infon,
    /// Anything else, with all that is in it.
    Other,
}

#[derive(Default)]
struct Builder {
    document: BiocDocument,
    /// Unknown elements within unknown ones are counted, not kept: nesting needs no memory here.
    open: Vec<Element>,
    ignored: usize,
    /// Elements within text, such as `<i>`: their words are the text's.
    inline: usize,
    value: String,
    key: String,
    annotation: BiocAnnotation,
    relation: BiocRelation,
}

impl Builder {
    fn start(&mut self, start: &BytesStart<'_>) -> Result<(), String> {
        if self.ignored > 0 {
            self.ignored += 1;
            return Ok(());
        }
        if self.open.last() == Some(&Element::Text) {
            self.inline += 1;
            return Ok(());
        }
        let name = start.local_name();
        let name = name.as_ref();
        let parent = self.open.last().copied();
        let is = |wanted: &str| name == wanted;
        let holder = matches!(parent, Some(Element::Document | Element::Passage | Element::Sentence));
        let element = match parent {
            None if is("document") => Element::Document,
            Some(Element::Document) if is("passage") => {
                self.document.passages.push(BiocPassage::default());
                Element::Passage
            }
            Some(Element::Document) if is("id") => Element::Id,
            Some(Element::Passage) if is("sentence") => {
                if let Some(passage) = self.document.passages.last_mut() {
                    passage.sentences.push(BiocPassage::default());
                }
                Element::Sentence
            }
            Some(Element::Passage | Element::Sentence) if is("offset") => Element::Offset,
            Some(Element::Passage | Element::Sentence | Element::Annotation) if is("text") => Element::Text,
            Some(_) if holder && is("annotation") => {
                self.annotation = BiocAnnotation {
                    id: attribute(start, "id")?.unwrap_or_default(),
                    ..BiocAnnotation::default()
                };
                Element::Annotation
            }
            Some(_) if holder && is("relation") => {
                self.relation = BiocRelation {
                    id: attribute(start, "id")?.unwrap_or_default(),
                    ..BiocRelation::default()
                };
                Element::Relation
            }
            Some(Element::Passage | Element::Annotation | Element::Relation) if is("infon") => {
                self.key = attribute(start, "key")?.unwrap_or_default();
                Element::Infon
            }
            Some(Element::Annotation) if is("location") => {
                let number = |name| -> Result<_, String> {
                    Ok(attribute(start, name)?.and_then(|value| value.trim().parse().ok()))
                };
                let location = BiocLocation {
                    offset: number("offset")?,
                    length: number("length")?,
                };
                self.annotation.locations.push(location);
                Element::Other
            }
            Some(Element::Relation) if is("node") => {
                self.relation.nodes.push(BiocNode {
                    refid: attribute(start, "refid")?.unwrap_or_default(),
                });
                Element::Other
            }
            None => return Err(format!("expected <document>, found <{}>", quoted(name))),
            Some(_) => Element::Other,
        };
        if element == Element::Other {
            self.ignored = 1;
        } else {
            self.open.push(element);
            self.value.clear();
        }
        Ok(())
    }

    fn text(&mut self, text: &str) -> Result<(), String> {
        if self.ignored == 0
            && matches!(
                self.open.last(),
                Some(Element::Id | Element::Offset | Element::Text | Element::Infon)
            )
        {
            self.value.push_str(text);
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), String> {
        if self.ignored > 0 {
            self.ignored -= 1;
            return Ok(());
        }
        if self.inline > 0 {
            self.inline -= 1;
            return Ok(());
        }
        let element = self.open.pop();
        let parent = self.open.last().copied();
        match element {
            Some(Element::Id) => self.document.id = std::mem::take(&mut self.value),
            Some(Element::Offset) => {
                let offset = self.value.trim().parse();
                let message = || format!("expected an offset, found {}", quoted(&self.value));
                let offset = Some(offset.map_err(|_| message())?);
                if let Some(holder) = self.holder() {
                    holder.offset = offset;
                }
            }
            Some(Element::Text) => {
                let value = Some(std::mem::take(&mut self.value));
                if parent == Some(Element::Annotation) {
                    self.annotation.text = value;
                } else if let Some(holder) = self.holder() {
                    holder.text = value;
                }
            }
            Some(Element::Infon) => {
                let infon = (std::mem::take(&mut self.key), std::mem::take(&mut self.value));
                match parent {
                    Some(Element::Annotation) => self.annotation.infons.0.push(infon),
                    Some(Element::Relation) => self.relation.infons.0.push(infon),
                    _ => {
                        if let Some(holder) = self.holder() {
                            holder.infons.0.push(infon);
                        }
                    }
                }
            }
            Some(Element::Annotation) => {
                let annotation = std::mem::take(&mut self.annotation);
                match self.holder() {
                    Some(holder) => holder.annotations.push(annotation),
                    None => self.document.annotations.push(annotation),
                }
            }
            Some(Element::Relation) => {
                let relation = std::mem::take(&mut self.relation);
                match self.holder() {
                    Some(holder) => holder.relations.push(relation),
                    None => self.document.relations.push(relation),
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The passage or sentence that is open.
    fn holder(&mut self) -> Option<&mut BiocPassage> {
        let innermost = self
            .open
            .iter()
            .rev()
            .find(|element| matches!(element, Element::Passage | Element::Sentence));
        let is_sentence = innermost == Some(&Element::Sentence);
        innermost?;
        let passage = self.document.passages.last_mut()?;
        match is_sentence {
            true => passage.sentences.last_mut(),
            false => Some(passage),
        }
    }
}

fn attribute(start: &BytesStart<'_>, name: &str) -> Result<Option<String>, String> {
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|error| error.to_string())?;
        if attribute.key.local_name().as_ref() == name {
            let value = attribute
                .normalized_value(XmlVersion::Implicit1_0)
                .map_err(|error| error.to_string())?;
            return Ok(Some(value.into_owned()));
        }
    }
    Ok(None)
}
