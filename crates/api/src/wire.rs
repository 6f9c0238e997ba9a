//! How stored fields go over the wire: what is empty is omitted, `null` reads as
//! empty, and the scalars that come in two spellings keep their meaning.
//!
//! Never: interprets a value beyond its spelling; validation does.

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};
use std::fmt;

/// Declares a stored record: every field is optional on reading, `null` counts
/// as absent, and what equals its default is not written, but for the fields
/// under `always`. Names are camelCase unless a field says otherwise. `..rest` keeps
/// the fields that are not declared.
macro_rules! record {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $( $(#[$fmeta:meta])* pub $field:ident : $ty:ty, )*
            $( always { $( $(#[$ameta:meta])* pub $afield:ident : $aty:ty, )* } )?
            $( .. $rest:ident )?
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub struct $name {
            $(
                $(#[$fmeta])*
                #[serde(
                    skip_serializing_if = "crate::wire::is_default",
                    deserialize_with = "crate::wire::nullable"
                )]
                pub $field: $ty,
            )*
            $( $(
                $(#[$ameta])*
                #[serde(deserialize_with = "crate::wire::nullable")]
                pub $afield: $aty,
            )* )?
            $(
                /// Fields that we do not read, kept as they came.
                #[serde(flatten)]
                pub $rest: serde_json::Map<String, serde_json::Value>,
            )?
        }
    };
}
pub(crate) use record;

/// Whether a field may be left out.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Reads `null` as the default, as Go does.
pub(crate) fn nullable<'de, T, D>(d: D) -> Result<T, D::Error>
where
    T: Default + Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::<T>::deserialize(d).map(Option::unwrap_or_default)
}

/// A number or a text: protocols, and other fields of Calico's `NumOrString`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NumOrString {
    /// Written as a number.
    Number(u32),
    /// Written as a text.
    Text(String),
}

impl Default for NumOrString {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

impl fmt::Display for NumOrString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(n) => n.fmt(f),
            Self::Text(t) => f.pad(t),
        }
    }
}

impl From<&str> for NumOrString {
    fn from(text: &str) -> Self {
        text.parse()
            .map_or_else(|_| Self::Text(text.to_owned()), Self::Number)
    }
}

impl From<u32> for NumOrString {
    fn from(n: u32) -> Self {
        Self::Number(n)
    }
}

impl Serialize for NumOrString {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Number(n) => s.serialize_u32(*n),
            Self::Text(t) => s.serialize_str(t),
        }
    }
}

impl<'de> Deserialize<'de> for NumOrString {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = NumOrString;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a string")
            }
            fn visit_u64<E: de::Error>(self, v: u64) -> Result<NumOrString, E> {
                u32::try_from(v)
                    .map(NumOrString::Number)
                    .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(v), &self))
            }
            fn visit_i64<E: de::Error>(self, v: i64) -> Result<NumOrString, E> {
                u32::try_from(v)
                    .map(NumOrString::Number)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(v), &self))
            }
            fn visit_str<E: de::Error>(self, v: &str) -> Result<NumOrString, E> {
                Ok(NumOrString::from(v))
            }
        }
        d.deserialize_any(V)
    }
}

/// A port of a rule: a number, `min:max`, or the name of an endpoint's port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Port {
    /// From and to, both inside; the wrong way round until validated.
    Range(u16, u16),
    /// By name.
    Name(String),
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range(a, b) if a == b => a.fmt(f),
            Self::Range(a, b) => write!(f, "{a}:{b}"),
            Self::Name(n) => f.pad(n),
        }
    }
}

impl Port {
    /// Reads a port as rules write it: digits, `digits:digits`, or else a name.
    ///
    /// # Errors
    /// Where digits make no port number.
    pub fn parse(text: &str) -> Result<Self, String> {
        let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        let number = |s: &str| {
            s.parse::<u16>()
                .map_err(|_| format!("port {s} is not between 0 and 65535"))
        };
        match text.split_once(':') {
            Some((a, b)) if digits(a) && digits(b) => Ok(Self::Range(number(a)?, number(b)?)),
            None if digits(text) => number(text).map(|n| Self::Range(n, n)),
            _ => Ok(Self::Name(text.to_owned())),
        }
    }
}

impl Serialize for Port {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Range(a, b) if a == b => s.serialize_u16(*a),
            p => s.collect_str(p),
        }
    }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match NumOrString::deserialize(d)? {
            NumOrString::Number(n) => u16::try_from(n)
                .map(|n| Self::Range(n, n))
                .map_err(|_| de::Error::custom(format!("port {n} is not between 0 and 65535"))),
            NumOrString::Text(t) => Self::parse(&t).map_err(de::Error::custom),
        }
    }
}

/// A float that prints as Go prints it: without `.0` where it is whole.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Number(pub f64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Number {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        #[expect(clippy::cast_possible_truncation, reason = "whole and below 2^53")]
        if self.0.fract() == 0.0 && self.0.abs() < 9_007_199_254_740_992.0 {
            s.serialize_i64(self.0 as i64)
        } else {
            s.serialize_f64(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        f64::deserialize(d).map(Self)
    }
}

/// An AS number: written as a number, read also as `"high.low"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AsNumber(pub net::Asn);

impl Serialize for AsNumber {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_u32(self.0.0)
    }
}

impl<'de> Deserialize<'de> for AsNumber {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = AsNumber;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an AS number such as 64512 or \"1.10\"")
            }
            fn visit_u64<E: de::Error>(self, v: u64) -> Result<AsNumber, E> {
                u32::try_from(v)
                    .map(|n| AsNumber(net::Asn(n)))
                    .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(v), &self))
            }
            fn visit_i64<E: de::Error>(self, v: i64) -> Result<AsNumber, E> {
                u32::try_from(v)
                    .map(|n| AsNumber(net::Asn(n)))
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(v), &self))
            }
            fn visit_str<E: de::Error>(self, v: &str) -> Result<AsNumber, E> {
                v.parse().map(AsNumber).map_err(E::custom)
            }
        }
        d.deserialize_any(V)
    }
}

/// A boolean that CRD storage keeps as the text `"true"` or `"false"`; read
/// from both, written as a boolean.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LooseBool(pub bool);

impl Serialize for LooseBool {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bool(self.0)
    }
}

impl<'de> Deserialize<'de> for LooseBool {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = LooseBool;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true or false")
            }
            fn visit_bool<E: de::Error>(self, v: bool) -> Result<LooseBool, E> {
                Ok(LooseBool(v))
            }
            fn visit_str<E: de::Error>(self, v: &str) -> Result<LooseBool, E> {
                match v {
                    "true" => Ok(LooseBool(true)),
                    "false" | "" => Ok(LooseBool(false)),
                    _ => Err(E::invalid_value(de::Unexpected::Str(v), &self)),
                }
            }
        }
        d.deserialize_any(V)
    }
}
