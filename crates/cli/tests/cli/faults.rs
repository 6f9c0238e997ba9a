//! What cannot be: one message that names the object, an exit code, nothing changed.

use crate::{Bench, POOL};

fn pool(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
    )
}

#[test]
fn bad_input_is_named_and_changes_nothing() {
    let b = Bench::new();
    b.apply(POOL);
    let before = b.dump();
    let policy = |spec: &str| {
        format!(
            "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{name: p}}\nspec: {spec}\n"
        )
    };
    for (text, parts) in [
        ("kind: IPPool\n  metadata: [\n".to_owned(), &["standard input:2:"][..]),
        (pool("x", "cidr: 10.66.0.0/24, blocksize: 26"), &["standard input:1:1", "spec.blocksize"]),
        ("apiVersion: v1\nkind: Elephant\nmetadata: {name: e}\n".to_owned(), &["resource type 'Elephant' is not supported"]),
        ("metadata: {name: e}\n".to_owned(), &["standard input:1:1: kind is missing"]),
        (pool("x", "cidr: 10.65.8.0/24"), &["IPPool(x) CIDR overlaps with IPPool(main) CIDR 10.65.0.0/16"]),
        (pool("x", "cidr: 10.66.0.0/28"), &["IPPool(x): error with field spec.cidr = '10.66.0.0/28'", "too small"]),
        (pool("x", "cidr: 10.66.0.1/24"), &["IPPool(x)", "IPPool CIDR must be strictly masked"]),
        (pool("main", "cidr: 10.66.0.0/16"), &["IPPool(main)", "IPPool CIDR cannot be modified"]),
        (policy("{tier: nope}"), &["GlobalNetworkPolicy(p)", "spec.tier = 'nope' (the tier does not exist; create it first (kind: Tier))"]),
        (policy("{selector: 'a =='}"), &["GlobalNetworkPolicy(p)", "spec.selector"]),
        (
            "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: knp.default.x, namespace: d}\n".to_owned(),
            &["operation apply is not supported on NetworkPolicy(d/knp.default.x)"],
        ),
        (
            "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: s, namespace: nope}\n".to_owned(),
            &["ServiceAccount(nope/s): namespaces \"nope\" not found"],
        ),
    ] {
        let message = b.fails_with(&text, &["apply", "-f", "-"]);
        assert!(parts.iter().all(|p| message.contains(p)), "{text}: {message}");
    }
    for (args, part) in [
        (
            &["get", "elephants"][..],
            "resource type 'elephants' is not supported; use one of ippool, ",
        ),
        (
            &["get", "pool", "-o", "xml"],
            "unrecognized output format 'xml': use ps, wide, yaml, json or custom-columns",
        ),
        (
            &["delete", "tier", "default"],
            "operation delete is not supported on Tier(default): Cannot delete default tier",
        ),
        (&["get", "np", "x", "-A"], "use -n NAMESPACE instead of -A"),
        (&["-l", "loud", "get", "np"], "unknown log level 'loud'"),
        (
            &["ipam", "release", "--ip", "192.0.2.1"],
            "IP address 192.0.2.1 is not assigned; it is in no IP pool",
        ),
        (
            &["ipam", "release", "--ip", "10.65.0.1"],
            "IP address 10.65.0.1 is not assigned\n",
        ),
        (
            &["ipam", "configure", "--max-blocks-per-host", "3"],
            "IPAMConfiguration(default): error with field",
        ),
    ] {
        let message = b.fails(args);
        assert!(message.contains(part), "{args:?}: {message}");
    }
    assert_eq!(b.dump(), before);
}

#[test]
fn a_store_that_cannot_be() {
    let b = Bench::new();
    b.store_at(b.dir.path());
    let text = b.fails_with(POOL, &["apply", "-f", "-"]);
    assert!(
        text.contains("it is a directory; name a file (MANX_STORE)"),
        "{text}"
    );
    assert!(b.fails(&["get", "pools"]).contains("it is a directory"));
    b.file("calicoctl.cfg", "apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nspec: {datastoreType: kubernetes}\n");
    assert!(
        b.fails(&["get", "pools"])
            .contains("datastore type kubernetes")
    );
    std::fs::remove_file(b.path("calicoctl.cfg")).expect("remove");
    assert!(
        b.fails(&["get", "pools"])
            .contains("No such file or directory")
    );
}

#[test]
fn a_store_of_a_newer_version() {
    use std::os::unix::fs::FileExt;
    let b = Bench::new();
    b.apply(POOL);
    // `user_version` in the file's header (SQLite file format, section 1.3).
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(b.store())
        .expect("store");
    file.write_all_at(&9_u32.to_be_bytes(), 60).expect("write");
    let before = std::fs::read(b.store()).expect("read");
    for args in [&["apply", "-f", "-"][..], &["get", "pools"]] {
        let text = b.fails_with(POOL, args);
        assert!(
            text.contains(
                "the store has format version 9, this program knows up to 1; use a newer manx"
            ),
            "{text}"
        );
    }
    assert_eq!(std::fs::read(b.store()).expect("read"), before);
}

#[test]
fn a_store_that_does_not_exist_is_empty_and_stays_away() {
    let b = Bench::new();
    let r = b.run(&["get", "pools"]);
    assert_eq!(
        (r.ok, r.out.as_str()),
        (true, "NAME   CIDR   SELECTOR   \n\n")
    );
    assert!(r.err.contains("store.db does not exist"), "{r:?}");
    assert!(!b.store().exists());
}

/// Runs where `path` is a small file system of its own that nobody else sees.
fn in_tmpfs(path: std::path::PathBuf, work: impl FnOnce() + Send + 'static) {
    use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
    use rustix::thread::{UnshareFlags, unshare_unsafe};
    let thread = std::thread::spawn(move || {
        // SAFETY: of this thread alone, and of those that it starts, which end with it.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }.expect("unshare");
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).expect("private mounts");
        mount(
            "tmpfs",
            &path,
            "tmpfs",
            MountFlags::empty(),
            Some(c"size=512k"),
        )
        .expect("tmpfs");
        work();
    });
    thread.join().expect("done");
}

#[test]
fn a_full_store() {
    let b = Bench::new();
    std::fs::create_dir(b.path("small")).expect("directory");
    b.store_at(&b.path("small/store.db"));
    in_tmpfs(b.path("small"), move || {
        b.apply(POOL);
        let big = "x".repeat(100_000);
        let set = |i: usize| {
            format!(
                "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata: {{name: s{i}, annotations: {{a: {big}}}}}\nspec: {{nets: [10.0.0.0/8]}}\n"
            )
        };
        let r = (0..100)
            .map(|i| b.run_with(&set(i), &["apply", "-f", "-"]))
            .find(|r| !r.ok)
            .expect("full at last");
        assert!(
            r.err.contains("database or disk is full") && r.err.contains("free space"),
            "{r:?}"
        );
        assert!(
            b.ok(&["get", "pools"]).contains("10.65.0.0/16"),
            "still read"
        );
        assert_eq!(b.fails(&["get", "gns", "s99"]).lines().count(), 1);
    });
}
