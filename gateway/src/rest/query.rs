//! Query parameters: each is asked for by name, what is wrong is collected, and a name that nobody asked for is refused.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use axum::extract::FromRequestParts;
use http::request::Parts;
use jiff::Timestamp;
use memharvest_services::settings::duration;
use percent_encoding::percent_decode_str;
use utoipa::IntoParams;

use super::problem::{FieldError, Problem};

const DEFAULT_PAGE: usize = 100;
const LONGEST_PAGE: usize = 1000;

/// The parameters of one request.
#[derive(Debug, Default)]
pub(crate) struct Query {
    given: Vec<(String, String)>,
    asked: Vec<&'static str>,
    errors: Vec<FieldError>,
}

/// Which part of a list.
#[derive(Debug, Clone, PartialEq, Eq, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Page {
    /// Items at most: 0 stands for 100, and more than 1000 for 1000.
    #[param(rename = "page_size", minimum = 0, default = 100, required = false)]
    pub(crate) size: usize,
    /// `next_page_token` of the page before.
    #[param(rename = "page_token", required = false)]
    pub(crate) token: String,
}

impl Page {
    /// A page of at most `size` items; 0 stands for the default.
    pub(crate) fn new(size: usize, token: String) -> Self {
        let size = if size == 0 { DEFAULT_PAGE } else { size.min(LONGEST_PAGE) };
        Self { size, token }
    }

    /// The size as messages have it.
    pub(crate) fn wire_size(&self) -> i32 {
        i32::try_from(self.size).unwrap_or(i32::MAX)
    }
}

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        Self::parse(parts.uri.query().unwrap_or_default())
    }
}

impl Query {
    fn parse(text: &str) -> Result<Self, Problem> {
        let decode = |part: &str| {
            let spaced = part.replace('+', " ");
            percent_decode_str(&spaced).decode_utf8().map(std::borrow::Cow::into_owned)
        };
        let mut query = Self::default();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match (decode(name), decode(value)) {
                (Ok(name), Ok(value)) => query.given.push((name, value)),
                _ => return Err(Problem::bad_field(name, "is not percent-encoded UTF-8")),
            }
        }
        Ok(query)
    }

    /// Every value of a parameter that may be repeated.
    pub(crate) fn all(&mut self, name: &'static str) -> Vec<String> {
        self.asked.push(name);
        self.given.iter().filter(|(given, _)| given == name).map(|(_, value)| value.clone()).collect()
    }

    /// A parameter that may be given once.
    pub(crate) fn one<T: FromStr<Err: Display>>(&mut self, name: &'static str) -> Option<T> {
        self.parsed(name, |text| text.parse().map_err(|error: T::Err| error.to_string()))
    }

    /// A time by RFC 3339.
    pub(crate) fn time(&mut self, name: &'static str) -> Option<Timestamp> {
        self.parsed(name, |text| {
            // A plus sign that was not encoded arrives as a space.
            text.replace(' ', "+").parse().map_err(|_| "must be a time such as 2026-01-31T12:00:00Z".into())
        })
    }

    /// A span such as 15m.
    pub(crate) fn span(&mut self, name: &'static str) -> Option<Duration> {
        self.parsed(name, duration)
    }

    /// Which part of a list is asked for.
    pub(crate) fn page(&mut self) -> Page {
        let size = self.parsed("page_size", |text| {
            text.parse().map_err(|_| format!("must be a number from 0 to {LONGEST_PAGE}"))
        });
        Page::new(size.unwrap_or(0), self.one("page_token").unwrap_or_default())
    }

    /// Notes a parameter that is wrong for a reason of the handler's own.
    pub(crate) fn refuse(&mut self, name: &str, message: impl Into<String>) {
        self.errors.push(FieldError { field: name.to_owned(), message: message.into() });
    }

    /// Nothing, or everything that is wrong.
    pub(crate) fn finish(mut self) -> Result<(), Problem> {
        for (name, _) in &self.given {
            if !self.asked.contains(&name.as_str()) {
                let known = if self.asked.is_empty() { "none is".into() } else { self.asked.join(", ") };
                self.errors.push(FieldError {
                    field: name.clone(),
                    message: format!("is no parameter here; known: {known}"),
                });
            }
        }
        if self.errors.is_empty() { Ok(()) } else { Err(Problem::bad_fields(self.errors)) }
    }

    fn parsed<T>(&mut self, name: &'static str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let values = self.all(name);
        match values.as_slice() {
            [] => None,
            [value] => match parse(value) {
                Ok(value) => Some(value),
                Err(message) => {
                    self.refuse(name, message);
                    None
                }
            },
            _ => {
                self.refuse(name, "is given more than once");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let mut query = Query::parse("page_size=-1&since=soon&stat=open&step=1x").unwrap();
        query.page();
        assert_eq!(query.time("since"), None);
        assert_eq!(query.span("step"), None);
        let problem = query.finish().unwrap_err();
        let fields: Vec<&str> = problem.errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(fields, ["page_size", "since", "step", "stat"]);
        assert_eq!(problem.status().as_u16(), 400);
    }

    #[test]
    fn values_are_decoded() {
        let mut query = Query::parse(
            "label=rack%3Da%2Fb&label=a+b&from=2026-01-01T00:00:00%2B01:00&to=2026-01-01T00:00:00+01:00",
        )
        .unwrap();
        assert_eq!(query.all("label"), ["rack=a/b", "a b"]);
        assert_eq!(query.time("from"), query.time("to"));
        assert_eq!(query.page(), Page { size: 100, token: String::new() });
        query.finish().unwrap();
        assert_eq!(Query::parse("page_size=5000").unwrap().page().size, 1000);
        assert!(Query::parse("vm=%ff").is_err());
    }

    #[test]
    fn a_parameter_given_twice_is_refused() {
        let mut query = Query::parse("page_size=1&page_size=2").unwrap();
        query.page();
        assert_eq!(query.finish().unwrap_err().errors[0].message, "is given more than once");
    }
}
