//! Config files as one merged TOML tree whose values know where they are written.

use std::ops::Range;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Problem, Problems};

/// The largest config file: far above any real one, and small enough that a wrong path does no harm.
const MAX_SIZE: usize = 4 << 20;

/// The text of all config files. A place in them is a range of bytes in their concatenation.
#[derive(Debug, Default)]
pub struct Sources(Vec<Source>);

/// One config file.
#[derive(Debug)]
pub struct Source {
    /// As it was given.
    pub path: PathBuf,
    /// Its contents.
    pub text: String,
    /// Where it begins in the concatenation.
    start: usize,
}

impl Sources {
    /// Reads every file, or says of each one that cannot be read why.
    pub fn read(paths: &[PathBuf]) -> Result<Self, Problems> {
        let mut sources = Vec::new();
        let mut problems = Vec::new();
        let mut start = 0;
        for path in paths {
            let text = match std::fs::read(path) {
                Ok(bytes) if bytes.len() > MAX_SIZE => Err("it is larger than 4 MiB".to_owned()),
                Ok(bytes) => String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned()),
                Err(cause) => Err(cause.to_string()),
            };
            match text {
                Ok(text) => {
                    let text = text.trim_start_matches('\u{feff}').to_owned();
                    let end = start + text.len() + 1;
                    sources.push(Source { path: path.clone(), text, start });
                    start = end;
                }
                Err(cause) => problems.push(Problem {
                    span: None,
                    sentence: format!("cannot read config `{}`: {cause}", path.display()),
                }),
            }
        }
        if problems.is_empty() { Ok(Self(sources)) } else { Err(Problems::new(Self(sources), problems)) }
    }

    /// The file that a place is in, and the place within that file.
    pub fn locate(&self, span: &Range<usize>) -> Option<(&Source, Range<usize>)> {
        let source = self.0.iter().rev().find(|source| source.start <= span.start)?;
        let within = |at: usize| (at - source.start).min(source.text.len());
        Some((source, within(span.start)..within(span.end.max(span.start))))
    }

    /// The merged tree, or `None` when a file is not TOML.
    pub fn parse(&self, problems: &mut Vec<Problem>) -> Option<Table> {
        let mut merged = Table::default();
        let mut whole = true;
        for source in &self.0 {
            // Behind as many blanks as the earlier files have bytes, every span is one of the concatenation.
            let text = " ".repeat(source.start) + &source.text;
            let (table, errors) = DeTable::parse_recoverable(&text);
            for error in errors {
                whole = false;
                let span = error.span().map(|span| span.start.max(source.start)..span.end.max(source.start));
                problems.push(Problem { span, sentence: format!("this is not TOML: {}", error.message()) });
            }
            merged.merge(Table::from(table.into_inner()));
        }
        whole.then_some(merged)
    }
}

/// A value and the place where it is written.
#[derive(Debug, Clone)]
pub struct Node {
    /// The value.
    pub value: Value,
    /// Its place in the [`Sources`].
    pub span: Range<usize>,
}

/// A TOML value, as far as configs have a use for it.
#[derive(Debug, Clone)]
pub enum Value {
    /// A string.
    Text(String),
    /// An integer that fits.
    Integer(i64),
    /// A number with a point or an exponent, as it is written.
    Float(String),
    /// `true` or `false`.
    Boolean(bool),
    /// An array.
    List(Vec<Node>),
    /// A table, however it is written.
    Table(Table),
    /// Something that no key takes: its type, with an article.
    Other(&'static str),
}

impl Value {
    /// What this is, with an article, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a floating-point number",
            Self::Boolean(_) => "a boolean",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(kind) => kind,
        }
    }
}

/// A table's entries in the order in which they are written.
#[derive(Debug, Clone, Default)]
pub struct Table(pub Vec<Entry>);

/// A key and its value.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The key's place.
    pub key_span: Range<usize>,
    /// The value and its place.
    pub node: Node,
}

impl Table {
    /// Takes over the keys of a later file: tables are merged key by key, lists of tables (`[[file]]`) grow, and any
    /// other value replaces the earlier one.
    fn merge(&mut self, later: Self) {
        for entry in later.0 {
            let Some(earlier) = self.0.iter_mut().find(|earlier| earlier.key == entry.key) else {
                self.0.push(entry);
                continue;
            };
            match (&mut earlier.node.value, entry.node.value) {
                (Value::Table(earlier), Value::Table(later)) => earlier.merge(later),
                (Value::List(earlier), Value::List(later)) if is_list_of_tables(&later) => {
                    earlier.extend(later)
                }
                (_, value) => {
                    earlier.key_span = entry.key_span;
                    earlier.node = Node { value, span: entry.node.span };
                }
            }
        }
    }
}

fn is_list_of_tables(list: &[Node]) -> bool {
    !list.is_empty() && list.iter().all(|node| matches!(node.value, Value::Table(_)))
}

impl From<DeTable<'_>> for Table {
    fn from(table: DeTable<'_>) -> Self {
        let entry = |(key, value): (Spanned<_>, _)| Entry {
            key_span: key.span(),
            key: String::from(key.into_inner()),
            node: Node::from(value),
        };
        let mut entries: Vec<Entry> = table.into_iter().map(entry).collect();
        entries.sort_by_key(|entry| entry.key_span.start);
        Self(entries)
    }
}

impl From<Spanned<DeValue<'_>>> for Node {
    fn from(value: Spanned<DeValue<'_>>) -> Self {
        let span = value.span();
        let value = match value.into_inner() {
            DeValue::String(text) => Value::Text(text.into_owned()),
            DeValue::Boolean(value) => Value::Boolean(value),
            DeValue::Integer(value) => i64::from_str_radix(value.as_str(), value.radix())
                .map_or(Value::Other("an integer out of range"), Value::Integer),
            DeValue::Array(list) => Value::List(list.into_iter().map(Self::from).collect()),
            DeValue::Table(table) => Value::Table(table.into()),
            DeValue::Float(value) => Value::Float(value.as_str().to_owned()),
            DeValue::Datetime(_) => Value::Other("a date"),
        };
        Self { value, span }
    }
}
