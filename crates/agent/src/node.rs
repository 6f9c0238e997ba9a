//! `manx node run`: the agent as a program.
//!
//! Promises: every mistake of the environment is told at once; the exit code says whether
//! the end was asked for.

use crate::config::Configuration;
use crate::{Error, Params};
use clap::{Args, Subcommand};
use daemon::env::ProcessEnv;
use daemon::logging::{self, Format};
use daemon::params::{Layer, parse_config_file};
use daemon::{Health, Metrics, NodeEnv, Shutdown, StoreConfig};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Run this machine as a node of the cluster
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do with this machine as a node.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the node agent until it is stopped
    ///
    /// Configuration is Calico's: NODENAME, IP, IP6, IP_AUTODETECTION_METHOD, NO_DEFAULT_POOLS,
    /// CALICO_IPV4POOL_CIDR, CALICO_NETWORKING_BACKEND (bird speaks BGP; vxlan and none do not),
    /// CALICO_ROUTER_ID and the like from the environment, FELIX_<NAME> for parameters of the
    /// agent, over FelixConfiguration in the datastore (`manx node parameters` lists them).
    Run(RunArgs),
    /// List every FELIX_ parameter with its values, default and meaning
    Parameters,
}

/// Arguments of `node run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Unix socket on which CNI plugins ask
    #[arg(long, env = "MANX_SOCKET", default_value = cni::conf::DEFAULT_SOCKET)]
    socket: PathBuf,
    /// Directory of the files that plugins read: nodename, mtu
    #[arg(long, env = "MANX_LIB_DIR", default_value = "/var/lib/calico")]
    lib_dir: PathBuf,
    /// Directory of BGP's control sockets: bird.ctl and bird6.ctl, which calicoctl and birdc know, and
    /// bgp.ctl
    #[arg(long, env = "MANX_BGP_DIR", value_name = "DIR", default_value = speaker::DIRECTORY)]
    bgp_dir: PathBuf,
    /// Tell a monitoring station of BGP's sessions and routes (BMP, RFC 7854); may be repeated, or
    /// parted by commas
    #[arg(
        long = "bmp",
        env = "MANX_BMP",
        value_name = "HOST:PORT",
        value_delimiter = ','
    )]
    stations: Vec<speaker::Station>,
    /// text or json
    #[arg(long, env = "MANX_LOG_FORMAT", default_value = "text")]
    log_format: Format,
    /// calicoctl's configuration file, which says where the datastore is
    #[arg(short, long)]
    config: Option<PathBuf>,
}

/// Runs the subcommand.
pub fn main(args: NodeArgs) -> ExitCode {
    match args.command {
        Command::Parameters => {
            print(&daemon::params::listing());
            ExitCode::SUCCESS
        }
        Command::Run(args) => match run(args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => {
                // Before there is a log there is only this.
                if tracing::dispatcher::has_been_set() {
                    tracing::error!("{e}");
                } else {
                    eprintln!("{e}");
                }
                ExitCode::FAILURE
            }
        },
    }
}

fn print(text: &str) {
    use std::io::Write as _;
    // Whoever closed our output has seen enough.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// Anything that keeps the program from running, told on its last line.
type Failure = Box<dyn std::error::Error>;

/// An error with its causes on one line: the log is all that an operator has.
fn chain(e: &dyn std::error::Error) -> String {
    let mut out = e.to_string();
    let mut next = e.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !out.contains(&text) {
            out.push_str(": ");
            out.push_str(&text);
        }
        next = cause.source();
    }
    out
}

fn run(args: RunArgs) -> Result<(), Failure> {
    daemon::memory::configure();
    daemon::files::raise_limit();
    let own = own_layers()?;
    let felix = daemon::FelixParams::resolve(&own);
    let log = logging::start(args.log_format, felix.params.log_severity);
    let env = NodeEnv::load(&ProcessEnv);
    let store = StoreConfig::load(args.config.as_deref(), &ProcessEnv);
    let (env, store) = match (env, store) {
        (Ok(env), Ok(store)) => (env, store),
        (env, store) => {
            // All of it at once, the parameters too that by themselves would only be passed over.
            let mut all: Vec<String> = env
                .err()
                .iter()
                .flatten()
                .map(ToString::to_string)
                .collect();
            all.extend(store.err().map(|e| chain(&e)));
            all.extend(felix.errors.iter().map(ToString::to_string));
            return Err(all.join("; ").into());
        }
    };
    let node = node_name(&env)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Wiring of pods runs beside the loop; more at once only queue for the kernel's RTNL lock. One
        // waits for the speaker's end.
        .max_blocking_threads(9)
        .thread_stack_size(512 << 10)
        .build()?;
    let done = runtime.block_on(serve(args, node, env, own, store, log));
    // A blocking call that hangs must not keep the process from ending.
    runtime.shutdown_background();
    done
}

async fn serve(
    args: RunArgs,
    node: Arc<str>,
    env: NodeEnv,
    own: Vec<Layer>,
    store: StoreConfig,
    log: logging::LogLevel,
) -> Result<(), Failure> {
    let stop = Shutdown::on_signals()?;
    let path = match &store {
        StoreConfig::Embedded { path } => Some(path.as_path()),
        StoreConfig::Memory => None,
    };
    let store = datastore::open(path).map_err(|e| chain(&e))?;
    let configuration = Configuration::new(node.clone(), env.backend, own);
    let (health, metrics) = (Health::default(), Metrics::default());
    let params = configuration.params().clone();
    if params.health_enabled {
        let server = daemon::http::Server::bind("health", &params.health_host, params.health_port)
            .await
            .map_err(|e| chain(&e))?;
        tokio::spawn(server.run(
            vec![daemon::http::health_handler(health.clone())],
            stop.clone(),
        ));
    }
    if params.metrics_enabled {
        let (host, port) = (&params.metrics_host, params.metrics_port);
        let server = daemon::http::Server::bind("metrics", host, port)
            .await
            .map_err(|e| chain(&e))?;
        tokio::spawn(server.run(vec![metrics.handler()], stop.clone()));
    }
    let params = Params {
        node,
        store,
        env,
        socket: args.socket,
        lib_dir: args.lib_dir,
        bgp_dir: args.bgp_dir,
        stations: args.stations,
        configuration,
        on_parameters: Box::new(move |p| log.set(p.log_severity)),
        health,
        metrics,
        stop,
    };
    crate::run(params)
        .await
        .map_err(|e: Error| chain(&e).into())
}

/// The node's own layers: its file and its environment.
fn own_layers() -> Result<Vec<Layer>, Failure> {
    let mut out = vec![Layer::from_environment()];
    let path = Path::new(daemon::params::CONFIG_FILE);
    match std::fs::read_to_string(path) {
        Ok(text) => out.push(parse_config_file(&text, path)?),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(format!("read {}: {e}", path.display()).into()),
    }
    Ok(out)
}

fn node_name(env: &NodeEnv) -> Result<Arc<str>, Failure> {
    let file = std::fs::read_to_string(&env.node_name_file).ok();
    let system = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = env
        .name(file.as_deref(), &system)
        .ok_or("the node has no name: set NODENAME")?;
    Ok(Arc::from(name))
}
