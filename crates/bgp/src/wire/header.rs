//! The header of every message (RFC 4271, sections 4.1 and 6.1; RFC 8654).
//!
//! Promises: a bad header is refused as soon as it is there, whether or not the rest of
//! the message ever comes. Never: looks into the body.

use crate::error::{Code, Notification, SessionError};
use crate::message::MessageKind;

/// Marker, length and type.
pub const HEADER_LEN: usize = 19;

/// The greatest message without RFC 8654, and the greatest OPEN and KEEPALIVE with it.
pub(super) const SHORT_MAX: usize = 4096;

/// The length in octets of the message that `received` starts with, its header counted;
/// `None` until all of it is there. `extended`: whether RFC 8654 was agreed on.
///
/// # Errors
/// The NOTIFICATION for a bad header.
pub fn frame_len(received: &[u8], extended: bool) -> Result<Option<usize>, SessionError> {
    let Some(header) = received.first_chunk::<HEADER_LEN>() else {
        return Ok(None);
    };
    let (_, len) = check(header, extended)?;
    Ok((received.len() >= len).then_some(len))
}

/// Takes the header off a whole message.
pub(super) fn open(message: &[u8], extended: bool) -> Result<(MessageKind, &[u8]), SessionError> {
    let Some((header, body)) = message.split_first_chunk::<HEADER_LEN>() else {
        return Err(bad_length(message.len()));
    };
    let (kind, len) = check(header, extended)?;
    if len != message.len() {
        return Err(bad_length(len));
    }
    Ok((kind, body))
}

fn check(header: &[u8; HEADER_LEN], extended: bool) -> Result<(MessageKind, usize), SessionError> {
    let [marker @ .., high, low, kind] = header;
    if *marker != [0xff; 16] {
        return Err(Code::NOT_SYNCHRONISED.into());
    }
    let len = usize::from(u16::from_be_bytes([*high, *low]));
    if len < HEADER_LEN || (!extended && len > SHORT_MAX) {
        return Err(bad_length(len));
    }
    let Some(kind) = MessageKind::from_u8(*kind) else {
        return Err(Notification::new(Code::BAD_MESSAGE_TYPE, [*kind]).into());
    };
    let fits = match kind {
        MessageKind::Open => (29..=SHORT_MAX).contains(&len),
        MessageKind::Update | MessageKind::RouteRefresh => len >= 23,
        MessageKind::Notification => len >= 21,
        MessageKind::Keepalive => len == HEADER_LEN,
    };
    if fits {
        Ok((kind, len))
    } else {
        Err(bad_length(len))
    }
}

/// Bad Message Length, with the length field as data.
pub(super) fn bad_length(len: usize) -> SessionError {
    let len = u16::try_from(len).unwrap_or(u16::MAX);
    Notification::new(Code::BAD_MESSAGE_LENGTH, len.to_be_bytes()).into()
}
