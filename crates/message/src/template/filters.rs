//! The filters of mail templates: those of the engine that cannot blow up, and stricter forms of some.

use minijinja::value::StringInput;
use minijinja::{Environment, Error, ErrorKind, State, Value, filters as engine};

/// What is known of a value before it is computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Bound {
    /// Certainly a number or truth value.
    Number,
    /// Anything of at most this many bytes.
    Bytes(u64),
}

/// Longest text form of a number: a float without its exponent.
const NUMBER: u64 = 400;

/// What `replace` makes at most, in bytes, above what it is given.
const REPLACED: usize = 64 * 1024;

impl Bound {
    /// Bytes at most.
    pub(super) fn bytes(self) -> u64 {
        match self {
            Self::Number => NUMBER,
            Self::Bytes(bytes) => bytes,
        }
    }

    /// Either of two values.
    pub(super) fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Number, Self::Number) => Self::Number,
            (one, other) => Self::Bytes(one.bytes().max(other.bytes())),
        }
    }

    /// The sum of two numbers, or two texts or lists behind one another.
    pub(super) fn plus(self, other: Self) -> Self {
        match (self, other) {
            (Self::Number, Self::Number) => Self::Number,
            (one, other) => Self::Bytes(one.bytes().saturating_add(other.bytes())),
        }
    }

    fn times(self, factor: u64) -> Self {
        Self::Bytes(self.bytes().saturating_mul(factor))
    }
}

/// Bound of what a filter makes of `input`; none when there is no such filter.
pub(super) fn bound(name: &str, input: Bound, arguments: &[Bound]) -> Option<Bound> {
    let first = arguments.first().copied();
    Some(match name {
        "abs" | "int" | "float" | "round" | "length" | "count" => Bound::Number,
        "trim" | "first" | "last" | "reverse" | "sort" | "unique" | "list" | "items" | "dictsort" | "split"
        | "lines" | "min" | "max" | "sum" | "string" | "safe" => Bound::Bytes(input.bytes()),
        // One character can become three in the other case, or %XX, or six in HTML.
        "lower" | "upper" | "title" | "capitalize" | "urlencode" => input.times(3),
        "escape" | "e" => input.times(6),
        "default" | "d" => input.or(first.unwrap_or(Bound::Bytes(0))),
        "join" => input.times(6 * (1 + first.map_or(0, Bound::bytes))),
        "replace" => input.plus(Bound::Bytes(REPLACED as u64)),
        _ => return None,
    })
}

/// Replaces the engine's filters that take an unknown variable for an empty text, or that could make anything large.
pub(super) fn install(environment: &mut Environment<'_>) {
    environment.add_filter("urlencode", |value: &Value| engine::urlencode(known(value)?));
    environment.add_filter("escape", escape);
    environment.add_filter("e", escape);
    environment.add_filter("join", join);
    environment.add_filter("replace", replace);
}

/// The engine has unknown variables be errors, except in some filters.
fn known(value: &Value) -> Result<&Value, Error> {
    if value.is_undefined() {
        Err(Error::from(ErrorKind::UndefinedError))
    } else {
        Ok(value)
    }
}

fn escape(state: &State, value: &Value) -> Result<Value, Error> {
    engine::escape(state, known(value)?)
}

fn join(state: &State, list: &Value, with: Option<StringInput<'_>>) -> Result<Value, Error> {
    engine::join(state, known(list)?, with)
}

/// Replaces each `old` in `text`. The result is not safe HTML, whatever the parts are.
fn replace(text: String, old: String, new: String) -> Result<String, Error> {
    let growth = text.matches(&old).count().saturating_mul(new.len());
    if growth > REPLACED {
        let words = format!("replace would put in more than {REPLACED} bytes");
        return Err(Error::new(ErrorKind::InvalidOperation, words));
    }
    Ok(text.replace(&old, &new))
}
