//! Positions and times in state files: texts in JSON, values here. `null` and a missing key are the same.

use serde::de::Error as _;
use serde::{Deserialize as _, Deserializer, Serializer};

use crate::value::position::Position;
use crate::value::time::Time;

/// What is written as a text.
pub trait Text: Sized + std::fmt::Display {
    /// Reads it back; the error says what was expected.
    fn read(text: &str) -> Result<Self, String>;
}

impl Text for Position {
    fn read(text: &str) -> Result<Position, String> {
        text.parse::<Position>().map_err(|error| error.to_string())
    }
}

impl Text for Time {
    fn read(text: &str) -> Result<Time, String> {
        Time::parse(text).ok_or_else(|| "a text is not a time".to_owned())
    }
}

/// For `serde(with)`.
pub fn serialize<T: Text, S: Serializer>(value: &Option<T>, out: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => out.collect_str(value),
        None => out.serialize_none(),
    }
}

/// For `serde(with)`.
pub fn deserialize<'de, T: Text, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    text.map(|text| T::read(&text).map_err(D::Error::custom)).transpose()
}
