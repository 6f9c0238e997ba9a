//! How many files a process may have open.
//!
//! Never: fails; a process that may not have more goes on with what it has.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Takes all that the system grants: each session and each watch is an open file, and the limit that a
/// process begins with, 1,024 for most, is for programs that use `select`. Says what holds then.
pub fn raise_limit() -> Option<u64> {
    let had = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: had.maximum,
        maximum: had.maximum,
    };
    match setrlimit(Resource::Nofile, wanted) {
        Ok(()) => wanted.current,
        Err(_) => had.current,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_granted_is_taken() {
        let granted = getrlimit(Resource::Nofile).maximum;
        let low = Rlimit {
            current: Some(256),
            maximum: granted,
        };
        setrlimit(Resource::Nofile, low).unwrap();
        assert_eq!(raise_limit(), granted);
        assert_eq!(getrlimit(Resource::Nofile).current, granted);
    }
}
