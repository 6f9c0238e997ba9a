//! How messages are read and written.
//!
//! Promises: reading borrows prefixes from the buffer, allocates for attributes alone, and
//! never panics; writing packs as many prefixes beside one set of attributes as the
//! session's greatest message holds. Never: looks past the message it is given.

mod as4;
mod attribute;
mod capability;
mod header;
mod nlri;
mod open;
mod update;
mod write;

pub use header::{HEADER_LEN, frame_len};
pub use nlri::{NlriBlock, NlriIter};
pub use write::{
    AttributeBlock, write_end_of_rib, write_keepalive, write_notification, write_open,
    write_refresh, write_withdrawal, write_withdrawals,
};

use crate::caps::Decoding;
use crate::error::{Code, Notification, SessionError};
use crate::message::{Message, MessageKind, RefreshSubtype, RouteRefresh};
use crate::types::AfiSafi;

/// Reads one whole message, as [`frame_len`] delimits it.
///
/// # Errors
/// The NOTIFICATION that ends the session. What RFC 7606 lets pass is no error; the
/// [`Update`](crate::message::Update) says what was wrong.
pub fn read<'a>(message: &'a [u8], how: &Decoding) -> Result<Message<'a>, SessionError> {
    let (kind, body) = header::open(message, how.extended_message)?;
    Ok(match kind {
        MessageKind::Open => Message::Open(open::read(body)?),
        MessageKind::Update => Message::Update(update::read(body, how)?),
        MessageKind::Notification => Message::Notification(read_notification(body)?),
        MessageKind::Keepalive => Message::Keepalive,
        MessageKind::RouteRefresh => Message::RouteRefresh(read_refresh(message, body)?),
    })
}

fn read_notification(body: &[u8]) -> Result<Notification, SessionError> {
    match body {
        [code, subcode, data @ ..] => Ok(Notification::new(
            Code {
                code: *code,
                subcode: *subcode,
            },
            data,
        )),
        _ => Err(header::bad_length(HEADER_LEN + body.len())),
    }
}

/// Begin and end must have the right length (RFC 7313, section 5); a request may carry
/// filters behind it that were never agreed on (RFC 5291), which are passed over.
fn read_refresh(message: &[u8], body: &[u8]) -> Result<RouteRefresh, SessionError> {
    let [a, b, subtype, safi, rest @ ..] = body else {
        return Err(header::bad_length(message.len()));
    };
    let subtype = RefreshSubtype::from_u8(*subtype);
    let marks = matches!(subtype, RefreshSubtype::Begin | RefreshSubtype::End);
    if marks && !rest.is_empty() {
        return Err(Notification::new(Code::REFRESH_LENGTH, message).into());
    }
    Ok(RouteRefresh {
        family: AfiSafi {
            afi: u16::from_be_bytes([*a, *b]),
            safi: *safi,
        },
        subtype,
    })
}
