//! Resources over a store: rules, stamps and the words of errors, on both backends.

use api::{Resource, ResourceKind, parse_documents};
use bytes::Bytes;
use datastore::{
    Client, ClientError, Delete, IpamStore, Precondition, Store, embedded, init, memory,
};
use ipam::{Storage as _, StorageError};
use std::sync::Arc;

fn stores() -> (tempfile::TempDir, Vec<Arc<dyn Store>>) {
    let dir = tempfile::tempdir().expect("dir");
    let file = embedded::Store::open(dir.path().join("store.db")).expect("opens");
    (dir, vec![Arc::new(memory::Store::new()), Arc::new(file)])
}

fn yaml(text: &str) -> Resource {
    let mut all = parse_documents(text, "test");
    let first = all.remove(0).expect("a resource");
    first.0.clone()
}

fn pool(name: &str, cidr: &str) -> Resource {
    yaml(&format!(
        "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {{name: {name}}}\nspec: {{cidr: {cidr}}}\n"
    ))
}

fn gnp(name: &str, tier: &str) -> Resource {
    yaml(&format!(
        "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {{name: {name}}}\nspec: {{tier: {tier}, selector: all()}}\n"
    ))
}

fn text(e: Result<impl std::fmt::Debug, ClientError>) -> String {
    e.expect_err("refused").to_string()
}

#[tokio::test]
async fn creating_stamps_and_updating_holds_on_to_a_version() {
    let (_dir, stores) = stores();
    for store in stores {
        let c = Client::new(store);
        let made = c.create(pool("p", "10.0.0.0/16")).await.expect("created");
        let m = made.meta().clone();
        assert_eq!(m.uid.len(), 36);
        assert!(
            m.creation_timestamp
                .as_deref()
                .is_some_and(|t| t.ends_with('Z') && t.len() == 20)
        );
        assert_eq!(m.resource_version, "1");
        let got = c.get(ResourceKind::IpPool, None, "p").await.expect("there");
        assert_eq!(got, made);
        let e = text(c.create(pool("p", "10.0.0.0/16")).await);
        assert_eq!(
            e,
            "resource already exists: IPPool(p) with error: ippools \"p\" already exists"
        );

        let mut new = got.clone();
        new.meta_mut().labels.insert("a".into(), "b".into());
        let new = c.update(new).await.expect("updated");
        assert_eq!(
            (&new.meta().uid, new.meta().resource_version.as_str()),
            (&m.uid, "2")
        );
        let stale = c.update(got).await;
        assert!(stale.as_ref().is_err_and(ClientError::is_conflict));
        assert_eq!(text(stale), "update conflict: IPPool(p)");
        // Without a version the newest is replaced; identity stays.
        let again = c.update(pool("p", "10.0.0.0/16")).await.expect("updated");
        assert_eq!((&again.meta().uid, again.meta().labels.len()), (&m.uid, 0));
        assert_eq!(again.meta().creation_timestamp, m.creation_timestamp);

        let e = text(c.update(pool("q", "10.9.0.0/16")).await);
        assert_eq!(
            e,
            "resource does not exist: IPPool(q) with error: ippools \"q\" not found"
        );
        let q = c.apply(pool("q", "10.9.0.0/16")).await.expect("created");
        assert_eq!(
            c.apply(pool("q", "10.9.0.0/16"))
                .await
                .expect("same")
                .meta()
                .uid,
            q.meta().uid
        );

        let of = |v| Delete {
            resource_version: Some(v),
            uid: None,
        };
        let e = c.delete(ResourceKind::IpPool, None, "p", of("1")).await;
        assert!(e.is_err_and(|e| e.is_conflict()));
        c.delete(ResourceKind::IpPool, None, "p", Delete::default())
            .await
            .expect("deleted");
        let e = c
            .delete(ResourceKind::IpPool, None, "p", Delete::default())
            .await;
        assert!(e.is_err_and(|e| e.is_not_found()));
        let left = c.list(ResourceKind::IpPool, None).await.expect("list");
        assert_eq!(left.resources.len(), 1);
    }
}

#[tokio::test]
async fn rules_between_objects_hold() {
    let (_dir, stores) = stores();
    for store in stores {
        init(&store, &[]).await.expect("init");
        let c = Client::new(store);
        c.create(pool("a", "10.0.0.0/16")).await.expect("created");
        let e = text(c.create(pool("b", "10.0.128.0/20")).await);
        assert!(
            e.contains("IPPool(b) CIDR overlaps with IPPool(a) CIDR 10.0.0.0/16"),
            "{e}"
        );
        let e = text(c.update(pool("a", "10.1.0.0/16")).await);
        assert!(e.contains("IPPool CIDR"), "{e}");
        assert!(matches!(
            c.create(pool("c", "10.7.0.1/16")).await,
            Err(ClientError::Invalid(_))
        ));
        let off = c.disable_pool("a").await.expect("disabled");
        assert!(matches!(off, Resource::IpPool(p) if p.spec.disabled));

        let e = text(c.create(gnp("t1.x", "t1")).await);
        assert!(e.contains("spec.tier = 't1'"), "{e}");
        let tier = "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: t1}\nspec: {order: 5}\n";
        c.create(yaml(tier)).await.expect("tier");
        c.create(gnp("t1.x", "t1")).await.expect("policy");
        let drop = |n| c.delete(ResourceKind::Tier, None, n, Delete::default());
        let e = text(drop("t1").await);
        assert!(e.contains("Cannot delete a non-empty tier"), "{e}");
        c.delete(
            ResourceKind::GlobalNetworkPolicy,
            None,
            "t1.x",
            Delete::default(),
        )
        .await
        .expect("gone");
        drop("t1").await.expect("empty now");
        let e = text(drop("default").await);
        assert_eq!(
            e,
            "operation delete is not supported on Tier(default): Cannot delete default tier"
        );

        let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: w, namespace: nowhere}\nspec: {nodeName: n}\n";
        assert_eq!(
            text(c.create(yaml(pod)).await),
            "namespaces \"nowhere\" not found"
        );
        let block = c.list(ResourceKind::IpamBlock, None).await;
        assert!(matches!(block, Err(ClientError::Unsupported { .. })));
        let profiles = c
            .list(ResourceKind::Profile, None)
            .await
            .expect("list")
            .resources;
        assert_eq!(profiles[0].meta().name, "projectcalico-default-allow");
    }
}

#[tokio::test]
async fn a_bad_object_is_named_and_the_others_are_listed() {
    let (_dir, stores) = stores();
    for store in stores {
        let c = Client::new(Arc::clone(&store));
        c.create(pool("a", "10.0.0.0/16")).await.expect("created");
        let key = api::key(ResourceKind::IpPool, None, "bad");
        store
            .put(
                &key,
                Bytes::from_static(b"{\"spec\": 5}"),
                Precondition::Any,
            )
            .await
            .expect("put");
        let listed = c.list(ResourceKind::IpPool, None).await.expect("list");
        assert_eq!((listed.resources.len(), listed.bad.len()), (1, 1));
        assert!(listed.bad[0].to_string().contains("bad"));
        let e = c.get(ResourceKind::IpPool, None, "bad").await;
        assert!(matches!(e, Err(ClientError::Bad(_))));
    }
}

#[tokio::test]
async fn pods_are_endpoints_and_keep_what_nodes_write() {
    let (_dir, stores) = stores();
    for store in stores {
        let c = Client::new(store);
        c.create(yaml(
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: prod}\n",
        ))
        .await
        .expect("ns");
        let pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: web-1, namespace: prod}\nspec: {nodeName: n-1, extra: {a: [1]}}\n";
        let pod = c.create(yaml(pod)).await.expect("pod");
        // What the node writes.
        let Resource::Pod(mut wired) = pod else {
            panic!("a pod")
        };
        for (key, value) in [
            ("podIP", "10.0.0.1/32"),
            ("podIPs", "10.0.0.1/32,fd00::1/128"),
            ("containerID", "c1"),
        ] {
            wired
                .metadata
                .annotations
                .insert(format!("cni.projectcalico.org/{key}"), value.to_owned());
        }
        wired.status.phase = "Running".to_owned();
        c.update(wired.into()).await.expect("update");
        let name = "n--1-k8s-web--1-eth0";
        let wep = c
            .get(ResourceKind::WorkloadEndpoint, Some("prod"), name)
            .await
            .expect("endpoint");
        let Resource::WorkloadEndpoint(w) = &wep else {
            panic!("{wep:?}")
        };
        assert_eq!(w.spec.ip_networks, ["10.0.0.1/32", "fd00::1/128"]);
        assert_eq!(w.spec.container_id, "c1");
        let all = c
            .list(ResourceKind::WorkloadEndpoint, None)
            .await
            .expect("list");
        assert_eq!(all.resources, [wep]);
        let e = text(
            c.delete(
                ResourceKind::WorkloadEndpoint,
                Some("prod"),
                name,
                Delete::default(),
            )
            .await,
        );
        assert!(e.contains("follows from another object"), "{e}");

        // The user's file again, which knows nothing of that.
        let again = "apiVersion: v1\nkind: Pod\nmetadata: {name: web-1, namespace: prod, labels: {a: b}}\nspec: {extra: {a: [1]}}\n";
        c.apply(yaml(again)).await.expect("apply");
        let Resource::Pod(p) = c
            .get(ResourceKind::Pod, Some("prod"), "web-1")
            .await
            .expect("pod")
        else {
            panic!("a pod")
        };
        assert!(p.spec.rest.contains_key("extra"), "what is unknown stays");
        assert_eq!(p.metadata.labels["a"], "b");
        assert_eq!(
            (p.spec.node_name.as_str(), p.status.phase.as_str()),
            ("n-1", "Running")
        );
        assert_eq!(
            p.metadata.annotations["cni.projectcalico.org/containerID"],
            "c1"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_number_may_initialise_at_once() {
    let (_dir, stores) = stores();
    for store in stores {
        let tasks: Vec<_> = (0..8)
            .map(|i| {
                let store = Arc::clone(&store);
                let kinds = vec!["k8s".to_owned(), format!("t{}", i % 2)];
                tokio::spawn(async move { init(&store, &kinds).await })
            })
            .collect();
        for t in tasks {
            t.await.expect("no panic").expect("init");
        }
        let c = Client::new(Arc::clone(&store));
        let kind = ResourceKind::ClusterInformation;
        let Resource::ClusterInformation(i) = c.get(kind, None, "default").await.expect("there")
        else {
            panic!("cluster information")
        };
        assert_eq!(i.spec.cluster_guid.len(), 32);
        assert!(i.spec.cluster_guid.bytes().all(|b| b.is_ascii_hexdigit()));
        assert_eq!(i.spec.datastore_ready, Some(true));
        let mut kinds: Vec<_> = i.spec.cluster_type.split(',').collect();
        kinds.sort_unstable();
        assert_eq!(kinds, ["k8s", "t0", "t1"]);
        let tiers = c
            .list(ResourceKind::Tier, None)
            .await
            .expect("tiers")
            .resources;
        let names: Vec<_> = tiers.iter().map(|t| t.meta().name.as_str()).collect();
        assert_eq!(names, ["default", "kube-admin", "kube-baseline"]);
        // A locked datastore stays locked, and a second round writes nothing.
        let mut locked = Resource::ClusterInformation(i);
        if let Resource::ClusterInformation(i) = &mut locked {
            i.spec.datastore_ready = Some(false);
        }
        let version = c
            .update(locked)
            .await
            .expect("locked")
            .meta()
            .resource_version
            .clone();
        init(&store, &["k8s".to_owned()]).await.expect("again");
        let after = c.get(kind, None, "default").await.expect("there");
        assert_eq!(after.meta().resource_version, version);
    }
}

#[tokio::test]
async fn ipam_sees_the_same_store() {
    let (_dir, stores) = stores();
    for store in stores {
        let s = IpamStore::new(Arc::clone(&store));
        let key = "/calico/ipam/v2/handle/h";
        let r = s.create(key, b"{}").await.expect("created");
        assert_eq!(s.create(key, b"{}").await, Err(StorageError::Conflict));
        assert_eq!(
            s.update(key, b"{1}", r + 9).await,
            Err(StorageError::Conflict)
        );
        let r = s.update(key, b"{1}", r).await.expect("updated");
        assert_eq!(
            s.get(key).await.expect("get").map(|g| (g.value, g.rev)),
            Some((b"{1}".to_vec(), r))
        );
        assert_eq!(s.list("/calico/ipam/v2/").await.expect("list").len(), 1);
        s.delete(key, r).await.expect("deleted");
        assert_eq!(s.update(key, b"{}", r).await, Err(StorageError::NotFound));
        assert_eq!(s.delete(key, r).await, Err(StorageError::NotFound));

        let c = Client::new(store);
        let kind = ResourceKind::IpamConfiguration;
        assert!(c.list(kind, None).await.expect("none").resources.is_empty());
        let config = "apiVersion: projectcalico.org/v3\nkind: IPAMConfiguration\nmetadata: {name: default}\nspec: {strictAffinity: true, maxBlocksPerHost: 4}\n";
        c.apply(yaml(config)).await.expect("applied");
        let raw = s
            .get(&ipam::config_key())
            .await
            .expect("get")
            .expect("there");
        let config = ipam::Config::decode(&raw.value).expect("ipam's form");
        assert!(config.strict_affinity && config.max_blocks_per_host == 4);
        assert!(c.get(kind, None, "default").await.is_ok());
    }
}

#[tokio::test]
async fn profiles_follow_from_namespaces_and_accounts() {
    let (_dir, stores) = stores();
    for store in stores {
        let c = Client::new(store);
        c.create(yaml(
            "apiVersion: v1\nkind: Namespace\nmetadata: {name: prod, labels: {team: a}}\n",
        ))
        .await
        .expect("created");
        c.create(yaml("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: web.v1, namespace: prod, labels: {tier: b}}\n"))
            .await
            .expect("created");
        c.create(yaml(
            "apiVersion: projectcalico.org/v3\nkind: Profile\nmetadata: {name: own}\n",
        ))
        .await
        .expect("created");
        let kind = ResourceKind::Profile;
        let listed = c.list(kind, None).await.expect("listed");
        let names: Vec<_> = (listed.resources.iter())
            .map(|r| r.meta().name.as_str())
            .collect();
        assert_eq!(
            names,
            [
                "kns.prod",
                "ksa.prod.web.v1",
                "own",
                "projectcalico-default-allow"
            ]
        );
        for (i, name) in names.iter().enumerate() {
            let one = c.get(kind, None, name).await.expect("there");
            assert_eq!(one, listed.resources[i], "{name}");
        }
        let Resource::Profile(account) = &listed.resources[1] else {
            panic!("{listed:?}")
        };
        let labels = &account.spec.labels_to_apply;
        assert_eq!(labels.get("pcsa.tier").map(String::as_str), Some("b"));
        for name in ["kns.prod", "kns.other", "projectcalico-default-allow"] {
            let text = format!(
                "apiVersion: projectcalico.org/v3\nkind: Profile\nmetadata: {{name: {name}}}\n"
            );
            let e = c.apply(yaml(&text)).await.expect_err("read-only");
            assert!(e.to_string().contains("is not supported"), "{e}");
        }
        let e = c.get(kind, None, "kns.other").await.expect_err("nothing");
        assert!(e.is_not_found());
    }
}

#[tokio::test]
async fn staged_policies_and_peers_need_what_they_name() {
    let (_dir, stores) = stores();
    for store in stores {
        init(&store, &[]).await.expect("init");
        let c = Client::new(store);
        let staged = |tier: &str| {
            yaml(&format!(
                "apiVersion: projectcalico.org/v3\nkind: StagedGlobalNetworkPolicy\nmetadata: {{name: s}}\nspec: {{tier: {tier}}}\n"
            ))
        };
        let e = text(c.create(staged("mine")).await);
        assert!(e.contains("the tier does not exist"), "{e}");
        let tier = "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: mine}\n";
        c.create(yaml(tier)).await.expect("created");
        c.create(staged("mine")).await.expect("created");
        let kind = ResourceKind::Tier;
        let e = text(c.delete(kind, None, "mine", Delete::default()).await);
        assert!(e.contains("Cannot delete a non-empty tier"), "{e}");
        let e = text(c.delete(kind, None, "kube-admin", Delete::default()).await);
        assert!(e.contains("Cannot delete kube-admin tier"), "{e}");
        let peer = "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {name: p}\nspec: {peerIP: 10.0.0.1, filters: [a, b]}\n";
        let filter = "apiVersion: projectcalico.org/v3\nkind: BGPFilter\nmetadata: {name: a}\n";
        c.create(yaml(filter)).await.expect("created");
        let e = text(c.create(yaml(peer)).await);
        assert_eq!(
            e,
            "error with field spec.filters = 'b' (BGPFilter(s) not found)"
        );
        c.create(yaml(&filter.replace("name: a", "name: b")))
            .await
            .expect("created");
        c.create(yaml(peer)).await.expect("created");
    }
}
