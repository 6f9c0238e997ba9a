//! The parameters of FelixConfiguration: one table for reading, validating and
//! converting.
//!
//! Promises: every parameter that Calico's v3 resource has is known by its JSON name, its type, and
//! the name that the environment and the agents know it by.

/// How a parameter's value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParameterType {
    /// `true` or `false`.
    Bool,
    /// A number from the first to the second.
    Int(i64, i64),
    /// Any text.
    Text,
    /// One of these, in any case for the environment, exact in YAML.
    OneOf(&'static [&'static str]),
    /// `90s`; the agents take seconds.
    Seconds,
    /// `50ms`; the agents take milliseconds.
    Millis,
    /// Texts in a list.
    List,
    /// Ports, `{protocol, port, net}` each.
    ProtoPorts,
    /// Ports and ranges of ports.
    Ports,
    /// `{min, max}`.
    Range,
    /// `{min, max}` each.
    Ranges,
    /// Text to text.
    Map,
    /// `{name, timeout}` each.
    Timeouts,
    /// A number or a text.
    NumberOrText,
}

/// One parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter {
    /// As the resource spells it.
    pub json: &'static str,
    /// As the environment spells it behind `FELIX_`, in lower case; `None` where that is the JSON name
    /// in lower case.
    alias: Option<&'static str>,
    /// How its value is written.
    pub kind: ParameterType,
}

impl Parameter {
    /// The name that the agents know it by: that of the environment, in lower case.
    pub fn name(&self) -> String {
        self.alias
            .map_or_else(|| self.json.to_ascii_lowercase(), str::to_owned)
    }
}

/// The parameter of that JSON name.
pub fn parameter(json: &str) -> Option<&'static Parameter> {
    PARAMETERS
        .binary_search_by(|p| p.json.cmp(json))
        .ok()
        .map(|i| &PARAMETERS[i])
}

use ParameterType::{
    Bool, Int, List, Map, Millis, NumberOrText, OneOf, Ports, ProtoPorts, Range, Ranges, Seconds,
    Text, Timeouts,
};

const fn p(json: &'static str, kind: ParameterType) -> Parameter {
    Parameter {
        json,
        alias: None,
        kind,
    }
}

const fn a(json: &'static str, alias: &'static str, kind: ParameterType) -> Parameter {
    Parameter {
        json,
        alias: Some(alias),
        kind,
    }
}

const E_D: ParameterType = OneOf(&["Enabled", "Disabled"]);
const PORT: ParameterType = Int(0, 65535);
const COUNT: ParameterType = Int(0, i64::MAX);
const ANY_INT: ParameterType = Int(i64::MIN, i64::MAX);
const ACCEPT_RETURN: ParameterType = OneOf(&["Accept", "Return"]);
const DROP_REJECT: ParameterType = OneOf(&["Drop", "Reject"]);
const LOG: ParameterType = OneOf(&["Trace", "Debug", "Info", "Warning", "Error", "Fatal"]);
const CLUSTER_ROUTES: ParameterType = OneOf(&[
    "Enabled",
    "Disabled",
    "EnabledIPIPOnly",
    "EnabledNoEncapOnly",
]);

/// All parameters, by JSON name.
pub static PARAMETERS: &[Parameter] = &[
    p("allowIPIPPacketsFromWorkloads", Bool),
    p("allowVXLANPacketsFromWorkloads", Bool),
    p("awsSrcDstCheck", OneOf(&["DoNothing", "Enable", "Disable"])),
    p("bpfAttachType", OneOf(&["Netkit", "TCX", "TC"])),
    p("bpfCTLBLogFilter", Text),
    p(
        "bpfConnectTimeLoadBalancing",
        OneOf(&["TCP", "Enabled", "Disabled"]),
    ),
    p("bpfConnectTimeLoadBalancingEnabled", Bool),
    p("bpfConntrackLogLevel", OneOf(&["Off", "Debug"])),
    a(
        "bpfConntrackMode",
        "bpfconntrackcleanupmode",
        OneOf(&["Auto", "Userspace", "BPFProgram"]),
    ),
    p("bpfConntrackTimeouts", Map),
    p("bpfDSROptoutCIDRs", List),
    p("bpfDataIfacePattern", Text),
    p("bpfDisableGROForIfaces", Text),
    p("bpfDisableUnprivileged", Bool),
    p("bpfEnabled", Bool),
    p("bpfEnforceRPF", OneOf(&["Loose", "Strict", "Disabled"])),
    p("bpfExcludeCIDRsFromNAT", List),
    p("bpfExportBufferSizeMB", COUNT),
    p("bpfExtToServiceConnmark", COUNT),
    p("bpfExternalServiceMode", OneOf(&["Tunnel", "DSR"])),
    p("bpfForceTrackPacketsFromIfaces", List),
    p("bpfHostConntrackBypass", Bool),
    p("bpfHostNetworkedNATWithoutCTLB", E_D),
    p("bpfIPFragTimeout", Seconds),
    p("bpfIPFragmentReassemblyEnabled", Bool),
    p("bpfJITHardening", OneOf(&["Auto", "Strict"])),
    p("bpfKubeProxyHealthzPort", PORT),
    p("bpfKubeProxyIptablesCleanupEnabled", Bool),
    p("bpfKubeProxyMinSyncPeriod", Seconds),
    p("bpfL3IfacePattern", Text),
    p("bpfLogFilters", Map),
    p("bpfLogLevel", OneOf(&["Off", "Info", "Debug"])),
    p("bpfMaglevMaxEndpointsPerService", Int(1, 3000)),
    p("bpfMaglevMaxServices", Int(1, 3000)),
    p("bpfMapSizeConntrack", COUNT),
    p("bpfMapSizeConntrackCleanupQueue", COUNT),
    p(
        "bpfMapSizeConntrackScaling",
        OneOf(&["DoubleIfFull", "Disabled"]),
    ),
    p("bpfMapSizeIPSets", COUNT),
    p("bpfMapSizeIfState", COUNT),
    p("bpfMapSizeNATAffinity", COUNT),
    p("bpfMapSizeNATBackend", COUNT),
    p("bpfMapSizeNATFrontend", COUNT),
    p("bpfMapSizePerCpuConntrack", COUNT),
    p("bpfMapSizeRoute", COUNT),
    p(
        "bpfOverlayHostSourceIP",
        OneOf(&["TunnelAddress", "HostAddress"]),
    ),
    p("bpfPSNATPorts", NumberOrText),
    p("bpfPolicyDebugEnabled", Bool),
    p("bpfProfiling", E_D),
    p(
        "bpfRedirectToPeer",
        OneOf(&["Enabled", "Disabled", "L2Only"]),
    ),
    p("cgroupV2Path", Text),
    p("chainInsertMode", OneOf(&["Insert", "Append"])),
    p("dataplaneDriver", Text),
    p("dataplaneWatchdogTimeout", Seconds),
    p("debugDisableLogDropping", Bool),
    p("debugHost", Text),
    p("debugMemoryProfilePath", Text),
    p("debugPort", PORT),
    p("debugSimulateCalcGraphHangAfter", Seconds),
    p("debugSimulateDataplaneApplyDelay", Seconds),
    p("debugSimulateDataplaneHangAfter", Seconds),
    p(
        "defaultEndpointToHostAction",
        OneOf(&["Drop", "Accept", "Return"]),
    ),
    p("deviceRouteProtocol", Int(0, 255)),
    p("deviceRouteSourceAddress", Text),
    p("deviceRouteSourceAddressIPv6", Text),
    p("disableConntrackInvalidCheck", Bool),
    a(
        "endpointReportingDelay",
        "endpointreportingdelaysecs",
        Seconds,
    ),
    p("endpointReportingEnabled", Bool),
    p("endpointStatusPathPrefix", Text),
    a("externalNodesList", "externalnodescidrlist", List),
    p("failsafeInboundHostPorts", ProtoPorts),
    p("failsafeOutboundHostPorts", ProtoPorts),
    p("featureDetectOverride", Text),
    p("featureGates", Text),
    p("floatingIPs", E_D),
    p("flowLogsCollectorDebugTrace", Bool),
    p("flowLogsFlushInterval", Seconds),
    p("flowLogsGoldmaneServer", Text),
    p("flowLogsLocalReporter", E_D),
    p(
        "flowLogsPolicyEvaluationMode",
        OneOf(&["Continuous", "None"]),
    ),
    p("genericXDPEnabled", Bool),
    p("goGCThreshold", ANY_INT),
    p("goMaxProcs", ANY_INT),
    p("goMemoryLimitMB", ANY_INT),
    p("healthEnabled", Bool),
    p("healthHost", Text),
    p("healthPort", PORT),
    p("healthTimeoutOverrides", Timeouts),
    p("interfaceExclude", Text),
    p("interfacePrefix", Text),
    p("interfaceRefreshInterval", Seconds),
    p("ipForwarding", E_D),
    a("ipipEnabled", "ipinipenabled", Bool),
    a("ipipMTU", "ipinipmtu", COUNT),
    p("ipsetsRefreshInterval", Seconds),
    p("iptablesBackend", OneOf(&["Auto", "Legacy", "NFT"])),
    p("iptablesFilterAllowAction", ACCEPT_RETURN),
    p("iptablesFilterDenyAction", DROP_REJECT),
    a(
        "iptablesLockProbeInterval",
        "iptableslockprobeintervalmillis",
        Millis,
    ),
    p("iptablesMangleAllowAction", ACCEPT_RETURN),
    p("iptablesMarkMask", Int(0, 4_294_967_295)),
    p("iptablesNATOutgoingInterfaceFilter", Text),
    a(
        "iptablesPostWriteCheckInterval",
        "iptablespostwritecheckintervalsecs",
        Seconds,
    ),
    p("iptablesRefreshInterval", Seconds),
    p("ipv4ElevatedRoutePriority", Int(0, 4_294_967_295)),
    p("ipv4NormalRoutePriority", Int(0, 4_294_967_295)),
    p("ipv6ElevatedRoutePriority", Int(0, 4_294_967_295)),
    p("ipv6NormalRoutePriority", Int(0, 4_294_967_295)),
    p("ipv6Support", Bool),
    p("istioAmbientMode", E_D),
    p("istioDSCPMark", NumberOrText),
    p("kubeNodePortRanges", Ports),
    p("liveMigrationRouteConvergenceTime", Seconds),
    p(
        "localSubnetL2Reachability",
        OneOf(&["Disabled", "PodsAndLoadBalancers"]),
    ),
    p("localSubnetL2ReachabilityRefreshInterval", Seconds),
    p("logActionRateLimit", Text),
    p("logActionRateLimitBurst", COUNT),
    p("logDebugFilenameRegex", Text),
    p("logFilePath", Text),
    p("logPrefix", Text),
    p("logSeverityFile", LOG),
    p("logSeverityScreen", LOG),
    p("logSeveritySys", LOG),
    p("maxIpsetSize", COUNT),
    p("metadataAddr", Text),
    p("metadataPort", PORT),
    p("mtuIfacePattern", Text),
    p("natOutgoingAddress", Text),
    p(
        "natOutgoingExclusions",
        OneOf(&["IPPoolsOnly", "IPPoolsAndHostIPs"]),
    ),
    p("natPortRange", NumberOrText),
    a("netlinkTimeout", "netlinktimeoutsecs", Seconds),
    p("nftablesFilterAllowAction", ACCEPT_RETURN),
    p("nftablesFilterDenyAction", DROP_REJECT),
    p("nftablesFlowTableDataIfacePattern", Text),
    p("nftablesFlowTableOffload", OneOf(&["Disabled", "All"])),
    p("nftablesMangleAllowAction", ACCEPT_RETURN),
    p("nftablesMarkMask", Int(0, 4_294_967_295)),
    p("nftablesMode", OneOf(&["Auto", "Enabled", "Disabled"])),
    p("nftablesRefreshInterval", Seconds),
    p("nodeSelector", Text),
    p("openstackRegion", Text),
    p("policySyncPathPrefix", Text),
    p("programClusterRoutes", CLUSTER_ROUTES),
    p("prometheusGoMetricsEnabled", Bool),
    p("prometheusMetricsCAFile", Text),
    p("prometheusMetricsCertFile", Text),
    p(
        "prometheusMetricsClientAuth",
        OneOf(&[
            "NoClientCert",
            "RequireAndVerifyClientCert",
            "RequireAnyClientCert",
            "VerifyClientCertIfGiven",
        ]),
    ),
    p("prometheusMetricsEnabled", Bool),
    p("prometheusMetricsHost", Text),
    p("prometheusMetricsKeyFile", Text),
    p("prometheusMetricsPort", PORT),
    p("prometheusProcessMetricsEnabled", Bool),
    p("prometheusWireGuardMetricsEnabled", Bool),
    p("removeExternalRoutes", Bool),
    a("reportingInterval", "reportingintervalsecs", Seconds),
    a("reportingTTL", "reportingttlsecs", Seconds),
    p("requireMTUFile", Bool),
    p("routeRefreshInterval", Seconds),
    p("routeSource", OneOf(&["CalicoIPAM", "WorkloadIPs"])),
    p("routeSyncDisabled", Bool),
    p("routeTableRange", Range),
    p("routeTableRanges", Ranges),
    p(
        "serviceLoopPrevention",
        OneOf(&["Drop", "Reject", "Disabled"]),
    ),
    p("sidecarAccelerationEnabled", Bool),
    p("usageReportingEnabled", Bool),
    a(
        "usageReportingInitialDelay",
        "usagereportinginitialdelaysecs",
        Seconds,
    ),
    a(
        "usageReportingInterval",
        "usagereportingintervalsecs",
        Seconds,
    ),
    p("useInternalDataplaneDriver", Bool),
    p("vxlanEnabled", Bool),
    p("vxlanMTU", COUNT),
    p("vxlanMTUV6", COUNT),
    p("vxlanPort", PORT),
    p("vxlanVNI", Int(0, 16_777_215)),
    p("windowsManageFirewallRules", E_D),
    p("wireguardEnabled", Bool),
    p("wireguardEnabledV6", Bool),
    p("wireguardHostEncryptionEnabled", Bool),
    p("wireguardInterfaceName", Text),
    p("wireguardInterfaceNameV6", Text),
    a(
        "wireguardKeepAlive",
        "wireguardpersistentkeepalive",
        Seconds,
    ),
    p("wireguardListeningPort", PORT),
    p("wireguardListeningPortV6", PORT),
    p("wireguardMTU", COUNT),
    p("wireguardMTUV6", COUNT),
    p("wireguardRoutingRulePriority", Int(0, 32_765)),
    p("wireguardThreadingEnabled", Bool),
    p("workloadSourceSpoofing", OneOf(&["Disabled", "Any"])),
    p("xdpEnabled", Bool),
    p("xdpRefreshInterval", Seconds),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_no_two_agree() {
        assert!(PARAMETERS.is_sorted_by(|x, y| x.json < y.json));
        let mut names: Vec<_> = PARAMETERS.iter().map(Parameter::name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), PARAMETERS.len());
    }

    #[test]
    fn names_that_differ() {
        for (json, name) in [
            ("vxlanMTU", "vxlanmtu"),
            ("ipipEnabled", "ipinipenabled"),
            (
                "iptablesLockProbeInterval",
                "iptableslockprobeintervalmillis",
            ),
            ("externalNodesList", "externalnodescidrlist"),
        ] {
            assert_eq!(parameter(json).map(Parameter::name).as_deref(), Some(name));
        }
        assert_eq!(parameter("noSuch"), None);
    }
}
