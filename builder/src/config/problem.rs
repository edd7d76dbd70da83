//! What is wrong with a config: each problem with its key path, a sentence and the place it is about.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use super::document::Sources;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where the config is wrong, in bytes of [`Sources`]; absent when something is missing altogether.
    pub span: Option<Range<usize>>,
    /// The key's path and what is wrong with its value: ``service.web.image: …``.
    pub sentence: String,
}

impl Problem {
    /// A problem with the value of the key at `path`, which stands at `span`.
    pub fn at(span: &Range<usize>, path: impl fmt::Display, what: impl fmt::Display) -> Self {
        Self { span: Some(span.clone()), sentence: format!("{path}: {what}") }
    }
}

/// Everything that is wrong with a config, and the text to show it in.
#[derive(Debug)]
pub struct Problems {
    sources: Sources,
    list: Vec<Problem>,
}

impl Problems {
    /// Problems in the order of the text.
    pub fn new(sources: Sources, mut list: Vec<Problem>) -> Self {
        list.sort_by_key(|problem| problem.span.as_ref().map_or(usize::MAX, |span| span.start));
        list.dedup();
        Self { sources, list }
    }

    /// The problems as text for a person: each with its line, in colour if `colour`.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
        let texts: Vec<String> =
            self.list.iter().map(|problem| self.render_one(problem, &renderer)).collect();
        texts.join("\n\n")
    }

    fn render_one(&self, problem: &Problem, renderer: &Renderer) -> String {
        let title = Level::ERROR.primary_title(problem.sentence.as_str());
        let place = problem.span.as_ref().and_then(|span| self.sources.locate(span));
        let group = match place {
            Some((source, span)) => {
                let snippet = Snippet::source(source.text.as_str()).path(source.path.display().to_string());
                title.element(snippet.annotation(AnnotationKind::Primary.span(span)))
            }
            None => annotate_snippets::Group::with_title(title),
        };
        renderer.render(&[group])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

/// `(did you mean `x`?)` with the nearest of `known`, or nothing when none is near.
pub fn suggestion<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    known
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        // Of the shortest words, something must be left of the candidate.
        .filter(|(distance, candidate)| {
            *distance <= 1.max(candidate.len() / 3) && *distance < candidate.len()
        })
        .min()
        .map(|(_, candidate)| format!(" (did you mean `{candidate}`?)"))
        .unwrap_or_default()
}
