//! The codec through its public face: golden bytes, RFC 7606 case by case, round trips,
//! truncation and mutation.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod bytes;
mod exercise;
mod golden;
mod malformed;
mod mutation;
mod open;
mod pack;
mod peers;
mod round_trip;
mod speed;
mod values;
