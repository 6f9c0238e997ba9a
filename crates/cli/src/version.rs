//! `version`: this program's and the cluster's.

use crate::CliError;
use crate::args::{GlobalArgs, VersionArgs};
use crate::cluster::{Access, Cluster};
use crate::run::Console;
use api::kinds::config::ClusterInformationSpec;

/// This program's version, as ClusterInformation has versions.
pub(crate) const CLIENT: &str = concat!("v", env!("CARGO_PKG_VERSION"));

/// The commit that it was built from, when the build says.
const COMMIT: Option<&str> = option_env!("MANX_GIT_COMMIT");

pub(crate) fn run(
    args: &VersionArgs,
    global: &GlobalArgs,
    console: &mut Console<'_>,
) -> Result<(), CliError> {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| text.push_str(&format!("{name:<19}{value}\n"));
    line("Client Version:", CLIENT);
    line("Git commit:", COMMIT.unwrap_or("unknown"));
    console.print(&text)?;
    if args.client {
        return Ok(());
    }
    let cluster = Cluster::open_any_version(global, Access::Existing)?;
    let mut last = None;
    loop {
        let information = cluster.information()?;
        let spec = information.map(|i| i.spec).unwrap_or_default();
        let of = |t: &str| {
            if t.is_empty() {
                "unknown".to_owned()
            } else {
                t.to_owned()
            }
        };
        let now = (of(&spec.calico_version), of(&spec.cluster_type));
        if last.as_ref() != Some(&now) {
            let (version, kind) = &now;
            console.print(&format!(
                "{:<19}{version}\n{:<19}{kind}\n",
                "Cluster Version:", "Cluster Type:"
            ))?;
            last = Some(now);
        }
        if args.poll.is_zero() {
            return Ok(());
        }
        cluster.pause(args.poll);
    }
}

/// The cluster's version, when another release of this program set it up. What Calico's own programs
/// set up is shared with them and bound to no version of ours.
pub(crate) fn mismatch(cluster: &ClusterInformationSpec) -> Option<String> {
    let release = |v: &str| v.split(['-', '+']).next().map(str::to_owned);
    let differs = release(&cluster.calico_version) != release(CLIENT);
    (cluster.variant == "Manx" && !cluster.calico_version.is_empty() && differs)
        .then(|| cluster.calico_version.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_releases_differ() {
        let of = |variant: &str, version: &str| {
            let mut s = ClusterInformationSpec::default();
            variant.clone_into(&mut s.variant);
            version.clone_into(&mut s.calico_version);
            mismatch(&s)
        };
        assert_eq!(of("Calico", "v3.30.0"), None);
        assert_eq!(of("Manx", ""), None);
        assert_eq!(of("Manx", &format!("{CLIENT}-dirty")), None);
        assert_eq!(of("Manx", "v99.0.0"), Some("v99.0.0".to_owned()));
    }
}
