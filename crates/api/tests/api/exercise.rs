//! What is done to bytes that come from outside: read, default, check, convert, print. Nothing of it
//! may panic or hang, whatever the bytes. The fuzz targets include this file as it is.

use api::{Resource, ResourceKind, parse_documents};

/// A file of a user's, as YAML or JSON.
pub(crate) fn document(text: &str) {
    for (r, _) in parse_documents(text, "f").into_iter().flatten() {
        use_it(r);
    }
}

/// An entry of the store: the first byte chooses the kind, the rest is the value.
pub(crate) fn stored(data: &[u8]) {
    let Some((first, value)) = data.split_first() else {
        return;
    };
    let kind = ResourceKind::ALL[usize::from(*first) % ResourceKind::ALL.len()];
    let key = api::key(kind, kind.namespaced().then_some("n"), "x");
    let _ = api::updates_for_key(&key, Some(value));
    let at = api::parse_key(&key).expect("of a kind");
    if let Ok(r) = api::decode(&at, value, None) {
        use_it(r);
    }
}

/// A selector: what is read means what its canonical text means, what is not is refused at a column
/// inside it. (`!(!x)` prints as `!!x`, which reads as `x`: the text is stable from the second time on.)
pub(crate) fn selector(text: &str) {
    let read = match model::Selector::parse(text) {
        Ok(s) => s,
        Err(e) => {
            let end = text.chars().count() + 1;
            assert!(e.column >= 1 && e.column <= end, "{e}");
            return;
        }
    };
    let again = model::Selector::parse(read.as_str()).expect("canonical text is legal");
    assert_eq!(
        model::Selector::parse(again.as_str()),
        Ok(again.clone()),
        "{text}"
    );
    for value in ["", "a", "b", "c"] {
        for label in ["a", "b", "x", "y"] {
            let labels = model::Labels::new([(label, value)]);
            assert_eq!(read.matches(&labels), again.matches(&labels), "{text}");
        }
    }
}

/// What happens to whatever was read: nothing of it may panic.
pub(crate) fn use_it(mut r: Resource) {
    api::default(&mut r);
    let valid = api::validate(&r);
    match &valid {
        Err(e) => assert!(!e.violations.is_empty() && !e.to_string().is_empty()),
        Ok(()) => assert!(
            api::updates(&r).is_ok(),
            "valid, but does not convert: {r:?}"
        ),
    }
    let _ = (
        api::to_yaml(&r),
        api::to_json(&r),
        api::row(&r, true),
        api::updates(&r),
    );
    if let Resource::Pod(p) = &r {
        let _ = api::convert::to_workload_endpoint(p);
    }
}
