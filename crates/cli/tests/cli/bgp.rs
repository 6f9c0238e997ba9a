//! `node status` and `bgp`, of sockets that say what they are told to.

use clap::Parser;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;

/// Answers one client on a socket.
fn serve(path: &Path, greeting: &'static str, asked: &'static str, answer: &'static str) {
    let listener = UnixListener::bind(path).expect("socket");
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("client");
        stream.write_all(greeting.as_bytes()).expect("greeting");
        let mut line = String::new();
        let mut from = BufReader::new(stream.try_clone().expect("clone"));
        from.read_line(&mut line).expect("question");
        let answer = if line.contains(asked) {
            answer
        } else {
            "9001 what?\n"
        };
        stream.write_all(answer.as_bytes()).expect("answer");
    });
}

#[derive(Parser)]
struct Status {
    #[command(flatten)]
    args: cli::NodeStatusArgs,
}

fn status(dir: &Path, proc: &Path) -> (u8, String) {
    let words = [
        Path::new("status"),
        Path::new("--socket"),
        dir,
        Path::new("--proc"),
        proc,
    ];
    let line = Status::parse_from(words);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut console = cli::Console {
        input: &mut std::io::empty(),
        out: &mut out,
        err: &mut err,
    };
    let code = cli::node_status_on(&line.args, &mut console);
    (code, String::from_utf8(out).expect("UTF-8"))
}

const FOUR: &str = "\
2002-name     proto    table    state  since       info
1002-static1  Static   master   up     23:29:50    
 kernel1  Kernel   master   up     23:29:50    
 Mesh_172_17_8_102 BGP      master   up     23:30:04    Established   
 Node_10_0_0_9 BGP      master   start  2016-11-21  Active        Socket: Connection refused
 Local_Workload_10_65_0_2 BGP      master   up     23:30:04    Established   
0000 
";

#[test]
fn node_status_is_calicoctl_s() {
    let dir = tempfile::tempdir().expect("directory");
    let hello = "0001 BIRD 1.6.8 ready.\n";
    serve(&dir.path().join("bird.ctl"), hello, "show protocols", FOUR);
    let six = "2002-name     proto    table    state  since       info\n1002-device1  Device   master   up     23:29:50    \n0000 \n";
    serve(&dir.path().join("bird6.ctl"), hello, "show protocols", six);
    let (code, out) = status(dir.path(), dir.path());
    assert_eq!(code, 0);
    assert_eq!(
        out,
        "\
Calico process is running.

IPv4 BGP status
+--------------+-------------------+-------+------------+--------------------------------+
| PEER ADDRESS |     PEER TYPE     | STATE |   SINCE    |              INFO              |
+--------------+-------------------+-------+------------+--------------------------------+
| 172.17.8.102 | node-to-node mesh | up    | 23:30:04   | Established                    |
| 10.0.0.9     | node specific     | start | 2016-11-21 | Active Socket: Connection      |
|              |                   |       |            | refused                        |
+--------------+-------------------+-------+------------+--------------------------------+

IPv6 BGP status
No IPv6 peers found.

"
    );
}

#[test]
fn what_does_not_run_is_said() {
    let dir = tempfile::tempdir().expect("directory");
    let (code, out) = status(dir.path(), dir.path());
    assert_eq!(
        (code, out.as_str()),
        (1, "Calico process is not running.\n")
    );
    let agent = dir.path().join("17");
    std::fs::create_dir(&agent).expect("directory");
    std::fs::write(agent.join("cmdline"), "/usr/bin/manx\0node\0run\0").expect("file");
    let (code, out) = status(dir.path(), dir.path());
    let none =
        "Calico process is running.\n\nNone of the BGP backend processes (BIRD) are running.\n\n";
    assert_eq!((code, out.as_str()), (0, none));
    let odd = "2002-Name       Proto      Table      State  Since         Info\n";
    serve(
        &dir.path().join("bird6.ctl"),
        "0001 BIRD 2.0.12 ready.\n",
        "show protocols",
        odd,
    );
    let (code, out) = status(dir.path(), dir.path());
    assert_eq!(code, 0);
    assert_eq!(
        out,
        "Calico process is running.\n\nINFO: BIRDv4 process: 'bird' is not running.\n\n\
         IPv6 BGP status\nError executing command: unknown BIRD table output format\n\n"
    );
}

fn bgp(answer: &'static str, asked: &'static str, words: &[&str]) -> (bool, String, String) {
    let dir = tempfile::tempdir().expect("directory");
    let socket = dir.path().join("bgp.ctl");
    serve(&socket, "", asked, answer);
    let line = ["manx", "bgp"].iter().chain(words).map(|w| (*w).to_owned());
    let line = line.chain(["--socket".to_owned(), socket.display().to_string()]);
    let line = super::Line::parse_from(line);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut console = cli::Console {
        input: &mut std::io::empty(),
        out: &mut out,
        err: &mut err,
    };
    let ok = cli::execute(line.command, &line.global, &mut console);
    let text = |o| String::from_utf8(o).expect("UTF-8");
    (ok, text(out), text(err))
}

const ROUTE: &str = r#"{"prefix":"10.1.0.0/24","paths":[{"peer":"Mesh_10_0_0_2","status":"best","nextHop":"10.0.0.2","asPath":"","origin":"IGP","localPref":100,"communities":["65000:1"]},{"peer":"Global_10_0_0_9","status":"lost","why":"longer AS path","nextHop":"10.0.0.9","asPath":"65001 65002","origin":"IGP"},{"peer":"Global_10_0_0_8","status":"refused","why":"import policy: BGPFilter(x) rule 1","nextHop":"10.0.0.8","asPath":"65003","origin":"IGP"}],"exports":[{"peer":"Global_10_0_0_9","told":true,"nextHop":"10.0.0.1","asPath":"64512","origin":"IGP"},{"peer":"Mesh_10_0_0_2","told":false,"why":"the peer told it to us"}]}
{"end":true}
"#;

#[test]
fn a_route_with_its_reasons() {
    let (ok, out, err) = bgp(ROUTE, r#""prefix":"10.1.0.7""#, &["routes", "10.1.0.7"]);
    assert!(ok, "{err}");
    assert_eq!(
        out,
        "\
10.1.0.0/24
  best      from Mesh_10_0_0_2: via 10.0.0.2, origin IGP, LOCAL_PREF 100, communities 65000:1
  lost      from Global_10_0_0_9: via 10.0.0.9, AS path 65001 65002, origin IGP: longer AS path
  refused   from Global_10_0_0_8: via 10.0.0.8, AS path 65003, origin IGP: import policy: BGPFilter(x) rule 1
  told      Global_10_0_0_9: via 10.0.0.1, AS path 64512, origin IGP
  not told  Mesh_10_0_0_2: the peer told it to us
"
    );
    let (ok, out, _) = bgp(
        ROUTE,
        r#""prefix":"10.1.0.7""#,
        &["routes", "10.1.0.7", "-o", "yaml"],
    );
    assert!(ok && out.contains("  why: longer AS path\n"), "{out}");
}

#[test]
fn peers_as_a_table() {
    let answer = "{\"name\":\"Global_10_0_0_9\",\"address\":\"10.0.0.9\",\"as\":65001,\"type\":\"global\",\"state\":\"Active\",\"since\":\"2026-01-02T03:04:05Z\",\"paths\":0,\"lastError\":\"hold timer expired\"}\n{\"end\":true}\n";
    let (ok, out, err) = bgp(answer, r#""ask":"peers""#, &["peers"]);
    assert!(ok, "{err}");
    assert_eq!(
        out,
        "\
PEER       AS      TYPE     STATE    SINCE                  PATHS   LAST ERROR           
10.0.0.9   65001   global   Active   2026-01-02T03:04:05Z   0       hold timer expired   
"
    );
}

#[test]
fn watched_paths_have_a_column() {
    let answer = "{\"address\":\"10.0.0.9\",\"state\":\"Established\",\"bfd\":{\"state\":\"Up\",\"hops\":\"single\"}}\n{\"address\":\"10.0.0.8\",\"state\":\"Active\",\"lastError\":\"sent: BFD down (6/10)\"}\n{\"end\":true}\n";
    let (ok, out, err) = bgp(answer, r#""ask":"peers""#, &["peers"]);
    assert!(ok, "{err}");
    assert_eq!(
        out,
        "\
PEER       AS   TYPE   STATE         SINCE   PATHS   BFD   LAST ERROR              
10.0.0.9               Established                   Up                            
10.0.0.8               Active                              sent: BFD down (6/10)   
"
    );
}

#[test]
fn an_answer_that_is_cut_off_is_an_error() {
    let cut = "{\"name\":\"x\",\"address\":\"10.0.0.9\"}\n";
    let (ok, out, err) = bgp(cut, "peers", &["peers"]);
    assert!(!ok && out.is_empty(), "{out}");
    assert!(err.contains("its answer was cut off"), "{err}");
    let (ok, _, err) = bgp(
        "{\"error\":\"there is no peer x\"}\n",
        "peers",
        &["peers", "x"],
    );
    assert!(!ok);
    assert_eq!(err, "there is no peer x\n");
}
