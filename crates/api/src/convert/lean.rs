//! A pod as conversion sees it: only the fields that count, borrowed from the
//! stored bytes. Clusters have more pods than anything else, so that what they cost decides how
//! long a start takes.

use crate::kind::ResourceKey;
use crate::kinds::kube;
use crate::meta::StringMap;
use crate::wire::nullable;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// A text, borrowed where it holds no escapes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

impl Text<'_> {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(s: &'a str) -> Self {
        Self(Cow::Borrowed(s))
    }
}

impl<'a> From<&'a String> for Text<'a> {
    fn from(s: &'a String) -> Self {
        Self(Cow::Borrowed(s))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, v: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(v)))
            }
            fn visit_str<E>(self, v: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(v.to_owned())))
            }
            fn visit_unit<E>(self) -> Result<Text<'de>, E> {
                Ok(Text::default())
            }
        }
        d.deserialize_str(V)
    }
}

/// A map of texts in the order in which they came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pairs<'a>(pub(super) Vec<(Text<'a>, Text<'a>)>);

impl Pairs<'_> {
    /// The value of a key; empty when it is not there.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(k, _)| k.as_str() == key)
            .map(|(_, v)| v.as_str())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }
}

impl<'a> From<&'a StringMap> for Pairs<'a> {
    fn from(m: &'a StringMap) -> Self {
        Self(m.iter().map(|(k, v)| (k.into(), v.into())).collect())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Pairs<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Pairs<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping of strings")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut m: A) -> Result<Pairs<'de>, A::Error> {
                let mut out = Vec::with_capacity(m.size_hint().unwrap_or(8));
                while let Some(pair) = m.next_entry()? {
                    out.push(pair);
                }
                Ok(Pairs(out))
            }
        }
        d.deserialize_map(V)
    }
}

/// Declares a record that borrows, whose fields may be absent or `null`.
macro_rules! lean {
    ($( struct $name:ident { $( $(#[$m:meta])* $field:ident : $ty:ty, )* $(; $( $own:ident : $oty:ty, )*)? } )*) => {
        $(
            #[derive(Debug, Default, serde::Deserialize)]
            #[serde(rename_all = "camelCase", default)]
            pub(super) struct $name<'a> {
                $( $(#[$m])* #[serde(borrow, deserialize_with = "nullable")] pub(super) $field: $ty, )*
                $( $( #[serde(deserialize_with = "nullable")] pub(super) $own: $oty, )* )?
            }
        )*
    };
}

lean! {
    struct Pod {
        metadata: Meta<'a>,
        spec: Spec<'a>,
        status: Status<'a>,
    }
    struct Meta {
        name: Text<'a>,
        namespace: Text<'a>,
        deletion_timestamp: Option<Text<'a>>,
        labels: Pairs<'a>,
        annotations: Pairs<'a>,
    }
    struct Spec {
        node_name: Text<'a>,
        service_account_name: Text<'a>,
        containers: Vec<Container<'a>>,
        init_containers: Vec<Container<'a>>,
        ;
        host_network: bool,
    }
    struct Container {
        ports: Vec<ContainerPort<'a>>,
    }
    struct ContainerPort {
        name: Text<'a>,
        protocol: Text<'a>,
        #[serde(rename = "hostIP")]
        host_ip: Text<'a>,
        ;
        container_port: u16,
        host_port: u16,
    }
    struct Status {
        phase: Text<'a>,
        #[serde(rename = "podIP")]
        pod_ip: Text<'a>,
        #[serde(rename = "podIPs")]
        pod_ips: Vec<Ip<'a>>,
    }
    struct Ip {
        ip: Text<'a>,
    }
}

impl<'a> Pod<'a> {
    /// Reads a stored pod. Name and namespace come from the key, where the object must agree.
    pub(super) fn read(bytes: &'a [u8], at: &ResourceKey<'a>) -> Result<Self, serde_json::Error> {
        let mut pod: Self = serde_json::from_slice(bytes)?;
        pod.metadata.name = at.name.into();
        pod.metadata.namespace = at.namespace.unwrap_or_default().into();
        Ok(pod)
    }
}

impl<'a> From<&'a kube::Pod> for Pod<'a> {
    fn from(p: &'a kube::Pod) -> Self {
        let containers = |list: &'a [kube::Container]| list.iter().map(Container::from).collect();
        Self {
            metadata: Meta {
                name: (&p.metadata.name).into(),
                namespace: (&p.metadata.namespace).into(),
                deletion_timestamp: p.metadata.deletion_timestamp.as_ref().map(Into::into),
                labels: (&p.metadata.labels).into(),
                annotations: (&p.metadata.annotations).into(),
            },
            spec: Spec {
                node_name: (&p.spec.node_name).into(),
                service_account_name: (&p.spec.service_account_name).into(),
                containers: containers(&p.spec.containers),
                init_containers: containers(&p.spec.init_containers),
                host_network: p.spec.host_network,
            },
            status: Status {
                phase: (&p.status.phase).into(),
                pod_ip: (&p.status.pod_ip).into(),
                pod_ips: p
                    .status
                    .pod_ips
                    .iter()
                    .map(|i| Ip { ip: (&i.ip).into() })
                    .collect(),
            },
        }
    }
}

impl<'a> From<&'a kube::Container> for Container<'a> {
    fn from(c: &'a kube::Container) -> Self {
        let port = |p: &'a kube::ContainerPort| ContainerPort {
            name: (&p.name).into(),
            protocol: (&p.protocol).into(),
            host_ip: (&p.host_ip).into(),
            container_port: p.container_port,
            host_port: p.host_port,
        };
        Self {
            ports: c.ports.iter().map(port).collect(),
        }
    }
}
