//! Kubernetes' Secrets, of which BGP reads the passwords of sessions.

use super::Cause;
use crate::kinds::kube::Secret;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::{SecretRef, Update};

/// What a value of `data` holds. Encoders break lines.
pub(crate) fn secret_value(text: &str) -> Result<Vec<u8>, base64::DecodeError> {
    let packed: String = text.split_whitespace().collect();
    STANDARD.decode(packed)
}

pub(super) fn update(r: &Secret) -> Result<Update, Cause> {
    let mut out = model::Secret::default();
    for (key, text) in &r.data {
        let octets = secret_value(text).map_err(|e| format!("data.{key}: not base64: {e}"))?;
        out.0.insert(key.as_str().into(), octets.into());
    }
    // A writer that was not asked to move them.
    for (key, text) in &r.string_data {
        out.0.insert(key.as_str().into(), text.as_bytes().into());
    }
    let at = SecretRef {
        namespace: r.metadata.namespace.as_str().into(),
        name: r.metadata.name.as_str().into(),
    };
    Ok(Update::Secret(at, Some(out)))
}
