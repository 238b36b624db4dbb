//! The text of a manifest file as objects, document by document: a document that cannot be read becomes a problem;
//! the others are used.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, de::DeserializeOwned};

use super::relist::Watched;
use crate::model::{Flaw, Kind, Object, ObjectKey, ObjectName, Position, Unread, wire};

/// What a file says.
#[derive(Default, Debug)]
pub(super) struct Parsed {
    /// The objects in order, each with its position. Without a value: it is there, but none of a node's business.
    pub(super) objects: Vec<(Position, ObjectKey, Option<Object>)>,
    /// What could not be read.
    pub(super) bad: Vec<Bad>,
}

/// A document, or an item of a list, that could not be read.
#[derive(Debug)]
pub(super) struct Bad {
    /// Where it is.
    pub(super) position: Position,
    /// The object that it is about, if that much could be read.
    pub(super) about: Option<ObjectName>,
    /// The Services that it may be about.
    pub(super) unread: Unread,
    /// What is wrong.
    pub(super) flaw: Flaw,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    api_version: Option<String>,
    kind: Option<String>,
    metadata: Option<HeaderMetadata>,
}

#[derive(Deserialize)]
struct HeaderMetadata {
    namespace: Option<String>,
    name: Option<String>,
    labels: Option<HeaderLabels>,
}

#[derive(Deserialize)]
struct HeaderLabels {
    #[serde(rename = "kubernetes.io/service-name")]
    service: Option<String>,
}

#[derive(Deserialize)]
struct List {
    items: Option<Vec<serde_json::Value>>,
}

/// Reads a file's text, YAML or JSON.
pub(super) fn parse(text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    for (number, document) in (1..).zip(split(text)) {
        parsed.document(number, &document);
    }
    parsed
}

/// One document of a file.
struct Document<'a> {
    text: &'a str,
    /// How many lines of the file come before it.
    lines_before: u64,
}

/// Splits at lines that start with `---`, which no document can contain otherwise. Documents without
/// content do not count.
fn split(text: &str) -> Vec<Document<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut documents = Vec::new();
    let (mut start, mut offset, mut lines_before, mut lines) = (0, 0, 0, 0);
    for line in text.split_inclusive('\n') {
        if is_separator(line) {
            documents.push(Document { text: &text[start..offset], lines_before });
            (start, lines_before) = (offset, lines);
        }
        offset += line.len();
        lines += 1;
    }
    documents.push(Document { text: &text[start..], lines_before });
    documents.retain(|document| document.text.lines().any(has_content));
    documents
}

fn is_separator(line: &str) -> bool {
    line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
}

fn has_content(line: &str) -> bool {
    let line = if is_separator(line) { &line[3..] } else { line };
    let line = line.trim();
    !(line.is_empty() || line.starts_with('#') || line == "...")
}

impl Parsed {
    fn document(&mut self, number: u32, document: &Document<'_>) {
        let position = Position { document: number, item: None };
        let header = match decode::<Header>(document) {
            Ok(header) => header,
            Err(flaw) => {
                return self.bad.push(Bad { position, about: None, unread: Unread::anything(), flaw });
            }
        };
        if let Some(of) = header.kind.as_deref().and_then(|kind| kind.strip_suffix("List")) {
            match decode::<List>(document) {
                Ok(list) => self.list(number, of, list),
                Err(flaw) => {
                    let unread = if may_list(of) { Unread::anything() } else { Unread::default() };
                    self.bad.push(Bad { position, about: None, unread, flaw });
                }
            }
            return;
        }
        self.object(position, &header, |kind| match kind {
            Kind::Service => Ok(Wire::Service(Box::new(decode(document)?))),
            Kind::EndpointSlice => Ok(Wire::EndpointSlice(Box::new(decode(document)?))),
            Kind::Node => Ok(Wire::Node(Box::new(decode(document)?))),
            Kind::Pod => Ok(Wire::Pod(Box::new(decode(document)?))),
        });
    }

    /// Items name their kind, or leave it to the list (`ServiceList`).
    fn list(&mut self, document: u32, of: &str, list: List) {
        for (index, item) in (0..).zip(list.items.into_iter().flatten()) {
            let position = Position { document, item: Some(index) };
            let mut header = match from_value::<Header>(&item) {
                Ok(header) => header,
                Err(flaw) => {
                    self.bad.push(Bad { position, about: None, unread: Unread::anything(), flaw });
                    continue;
                }
            };
            if let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.name() == of) {
                header.kind.get_or_insert_with(|| kind.name().into());
                header.api_version.get_or_insert_with(|| kind.api_version().into());
            }
            self.object(position, &header, |kind| match kind {
                Kind::Service => Ok(Wire::Service(Box::new(from_value(&item)?))),
                Kind::EndpointSlice => Ok(Wire::EndpointSlice(Box::new(from_value(&item)?))),
                Kind::Node => Ok(Wire::Node(Box::new(from_value(&item)?))),
                Kind::Pod => Ok(Wire::Pod(Box::new(from_value(&item)?))),
            });
        }
    }

    fn object(
        &mut self,
        position: Position,
        header: &Header,
        decode: impl FnOnce(Kind) -> Result<Wire, Flaw>,
    ) {
        match kind(header).and_then(decode).and_then(Wire::read) {
            Ok((key, object)) => self.objects.push((position, key, object)),
            Err(flaw) => {
                self.bad.push(Bad { position, about: header.about(), unread: header.unread(), flaw });
            }
        }
    }
}

impl Header {
    /// The object.
    fn about(&self) -> Option<ObjectName> {
        let metadata = self.metadata.as_ref()?;
        metadata.named(metadata.name.as_deref())
    }

    /// The Services that the object may be about. One without a name may be the beginning of any.
    fn unread(&self) -> Unread {
        let Some(about) = self.about() else { return Unread::anything() };
        let written = self.kind.as_deref().unwrap_or_default();
        match Kind::ALL.into_iter().find(|kind| kind.name() == written) {
            // No kind that we know may be a Service, misspelt.
            Some(Kind::Service) | None => Unread::of(about),
            Some(Kind::EndpointSlice) => {
                let metadata = self.metadata.as_ref();
                let service = metadata
                    .and_then(|metadata| metadata.named(metadata.labels.as_ref()?.service.as_deref()));
                service.map_or_else(Unread::anything, Unread::of)
            }
            Some(Kind::Node | Kind::Pod) => Unread::default(),
        }
    }
}

impl HeaderMetadata {
    fn named(&self, name: Option<&str>) -> Option<ObjectName> {
        let name = name.filter(|name| !name.is_empty())?;
        Some(ObjectName::new(self.namespace.as_deref().unwrap_or("default"), name))
    }
}

/// Whether a list of this kind may hold Services or their endpoints; no kind is any.
fn may_list(kind: &str) -> bool {
    kind.is_empty() || [Kind::Service, Kind::EndpointSlice].iter().any(|known| known.name() == kind)
}

/// An object of a kind that Sidestep reads, as it is written.
enum Wire {
    Service(Box<wire::Service>),
    EndpointSlice(Box<wire::EndpointSlice>),
    Node(Box<wire::Node>),
    Pod(Box<wire::Pod>),
}

impl Wire {
    /// With what an API server would have filled in.
    fn read(self) -> Result<(ObjectKey, Option<Object>), Flaw> {
        match self {
            Self::Service(mut service) => {
                complete(&mut service.metadata, true)?;
                Ok((service.key(), service.read()))
            }
            Self::EndpointSlice(mut slice) => {
                complete(&mut slice.metadata, true)?;
                Ok((slice.key(), slice.with_api_defaults().read()))
            }
            Self::Node(mut node) => {
                complete(&mut node.metadata, false)?;
                Ok((node.key(), node.read()))
            }
            Self::Pod(mut pod) => {
                complete(&mut pod.metadata, true)?;
                Ok((pod.key(), pod.read()))
            }
        }
    }
}

fn complete(metadata: &mut ObjectMeta, namespaced: bool) -> Result<(), Flaw> {
    if metadata.name.as_deref().unwrap_or_default().is_empty() {
        return Err(Flaw::new("metadata.name", "missing; give the object a name"));
    }
    if namespaced {
        let namespace = metadata.namespace.take().filter(|namespace| !namespace.is_empty());
        metadata.namespace = Some(namespace.unwrap_or_else(|| "default".into()));
    } else {
        metadata.namespace = None;
    }
    Ok(())
}

/// The kind, if it is one that Sidestep reads.
fn kind(header: &Header) -> Result<Kind, Flaw> {
    let version = header.api_version.as_deref().unwrap_or_default();
    let written = header.kind.as_deref().unwrap_or_default();
    let known = Kind::ALL.into_iter().find(|kind| kind.name() == written);
    match known {
        Some(kind) if kind.api_version() == version => Ok(kind),
        Some(kind) => Err(Flaw::new(
            "apiVersion",
            format!("sidestep does not read {written} of `{version}`; write {}", kind.api_version()),
        )),
        None => Err(Flaw::new(
            "kind",
            format!(
                "sidestep does not read `{written}` (only Service, EndpointSlice, Node, Pod and List); move it to \
                 another directory"
            ),
        )),
    }
}

fn decode<T: DeserializeOwned>(document: &Document<'_>) -> Result<T, Flaw> {
    serde_saphyr::from_str_with_options(document.text, options()).map_err(|error| {
        let line = error.location().map(|location| location.line() + document.lines_before);
        let rendered = error.render_with_options(serde_saphyr::render_options! {
            snippets: serde_saphyr::SnippetMode::Off,
            line_offset: document.lines_before,
        });
        Flaw::new(line.map_or_else(|| "document".into(), |line| format!("line {line}")), rendered)
    })
}

/// Budgets against documents that explode, well above a list of every Service of a large cluster.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 50_000_000,
            max_nodes: 20_000_000,
            max_total_scalar_bytes: 1 << 30,
        },
        with_snippet: false,
    }
}

fn from_value<T: DeserializeOwned>(value: &serde_json::Value) -> Result<T, Flaw> {
    T::deserialize(value).map_err(|error| Flaw::new("item", error.to_string()))
}

#[cfg(test)]
#[path = "documents_tests.rs"]
mod tests;
