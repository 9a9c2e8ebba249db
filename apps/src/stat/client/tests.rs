//! Programs that are played by threads, in a directory of their own.

use std::thread::{self, JoinHandle};

use rustix::net::{accept, bind, listen};

use super::*;

/// A directory that goes with the test.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let dir = format!("pq-stat-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(dir);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// A program that answers `clients` clients, each until it goes, as `answer` says.
    fn program(
        &self,
        prefix: &str,
        name: &str,
        pid: u64,
        clients: usize,
        answer: fn(&str) -> String,
    ) -> JoinHandle<()> {
        let dir = self.0.join(prefix);
        fs::create_dir_all(&dir).unwrap();
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        bind(&socket, &SocketAddrUnix::new(dir.join(name)).unwrap()).unwrap();
        listen(&socket, 8).unwrap();
        thread::spawn(move || {
            for _ in 0..clients {
                let client = accept(&socket).unwrap();
                let say = |text: String| {
                    let _ = send(&client, text.as_bytes(), SendFlags::NOSIGNAL);
                };
                say(format!(r#"{{"version":"x","pid":{pid},"max_output_len":16384}}"#));
                let mut bytes = [0; 4096];
                while let Ok((n, _)) = recv(&client, &mut bytes[..], RecvFlags::empty())
                    && n > 0
                {
                    let command = String::from_utf8_lossy(&bytes[..n]).into_owned();
                    let answer = answer(command.trim_start_matches("/prequeue/"));
                    say(format!(r#"{{"{command}":{answer}}}"#));
                }
            }
        })
    }

    fn find(&self, choice: &Choice) -> Result<Client, String> {
        Client::find(std::slice::from_ref(&self.0), choice).map_err(|error| error.to_string())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn ours(command: &str) -> String {
    match command {
        "info" => r#"{"address0":"10.0.0.2/24","device":"net_tap0"}"#.to_owned(),
        "counters" => r#"{"TcpInSegs":7}"#.to_owned(),
        "sockets" => {
            r#"{"list":5,"total":3,"omitted":9,"0":{"rmem":30},"1":{"rmem":20}}"#.to_owned()
        }
        "sockets,2,5" => r#"{"list":5,"total":3,"omitted":9,"2":{"rmem":10}}"#.to_owned(),
        "stacks" => r#"{"0":{"name":"net_tap0"},"1":{"name":"net_tap1"}}"#.to_owned(),
        "info,stack=net_tap1" | "info,stack=1" => {
            r#"{"address0":"10.1.0.2/24","device":"net_tap1"}"#.to_owned()
        }
        "counters,stack=net_tap1" => r#"{"TcpInSegs":9}"#.to_owned(),
        "counters,3,stack=net_tap1" => r#"{"TcpInSegs":5}"#.to_owned(),
        _ => "null".to_owned(),
    }
}

fn others(_command: &str) -> String {
    "null".to_owned()
}

#[test]
fn the_only_program_is_found_and_asked() {
    let place = Place::new("only");
    let program = place.program("rte", "dpdk_telemetry.v2:1", 77, 1, ours);
    // What a process that was killed has left behind.
    drop(place.program("rte", "dpdk_telemetry.v2", 76, 0, ours).join());
    let client = place.find(&Choice::default()).unwrap();
    assert_eq!(client.pid, 77);
    assert_eq!(client.ask("counters").unwrap()["TcpInSegs"], 7);
    let error = client.ask("weather").unwrap_err().to_string();
    assert!(error.contains("no answer to /prequeue/weather"), "{error}");
    drop(client);
    program.join().unwrap();
}

#[test]
fn a_list_is_put_together_of_its_pages() {
    let place = Place::new("pages");
    let program = place.program("rte", "dpdk_telemetry.v2", 77, 1, ours);
    let client = place.find(&Choice::default()).unwrap();
    let (rows, omitted) = client.sockets().unwrap();
    let rmem: Vec<_> = rows.iter().map(|row| row["rmem"].as_u64().unwrap()).collect();
    assert_eq!((rmem, omitted), (vec![30, 20, 10], 9));
    drop(client);
    program.join().unwrap();
}

#[test]
fn a_stack_is_chosen_by_name_or_number() {
    let place = Place::new("stacks");
    let program = place.program("rte", "dpdk_telemetry.v2", 77, 4, ours);
    let of = |stack: &str| Choice { stack: Some(stack.to_owned()), ..Choice::default() };
    let client = place.find(&of("net_tap1")).unwrap();
    assert_eq!(client.info["address0"], "10.1.0.2/24");
    assert_eq!(client.ask("counters").unwrap()["TcpInSegs"], 9);
    assert_eq!(client.ask("counters,3").unwrap()["TcpInSegs"], 5);
    drop(client);
    assert_eq!(place.find(&of("1")).unwrap().info["device"], "net_tap1");
    let error = place.find(&of("net_tap2")).unwrap_err();
    assert!(error.contains("no stack net_tap2: there is 0 (net_tap0); 1 (net_tap1)"), "{error}");
    let client = place.find(&Choice::default()).unwrap();
    assert_eq!(client.info["device"], "net_tap0");
    let stacks = client.stacks();
    assert_eq!(
        stacks.iter().map(|stack| &*stack.name).collect::<Vec<_>>(),
        ["net_tap0", "net_tap1"]
    );
    drop(client);
    program.join().unwrap();
}

#[test]
fn of_several_one_must_be_chosen() {
    let place = Place::new("several");
    let programs = [
        place.program("rte", "dpdk_telemetry.v2", 77, 3, ours),
        place.program("other", "dpdk_telemetry.v2", 78, 2, ours),
        place.program("third", "dpdk_telemetry.v2", 79, 2, others),
    ];
    let error = place.find(&Choice::default()).unwrap_err();
    assert!(error.contains("pid 77 (prefix rte): 10.0.0.2/24 on net_tap0"), "{error}");
    assert!(error.contains("pid 78") && !error.contains("pid 79"), "{error}");
    let by_pid = Choice { pid: Some(78), ..Choice::default() };
    assert_eq!(place.find(&by_pid).unwrap().pid, 78);
    let by_prefix = Choice { file_prefix: Some("rte".to_owned()), ..Choice::default() };
    assert_eq!(place.find(&by_prefix).unwrap().pid, 77);
    for program in programs {
        program.join().unwrap();
    }
}

#[test]
fn what_is_missing_is_told() {
    let place = Place::new("missing");
    let error = place.find(&Choice::default()).unwrap_err();
    assert!(error.contains("--no-telemetry") && error.contains("pq-stat-missing"), "{error}");
    let program = place.program("rte", "dpdk_telemetry.v2", 80, 1, others);
    let error = place.find(&Choice::default()).unwrap_err();
    assert!(error.contains("pid 80 (prefix rte): no prequeue"), "{error}");
    program.join().unwrap();
    let socket = Some(place.0.join("nowhere"));
    let error = place.find(&Choice { socket, ..Choice::default() }).unwrap_err();
    assert!(error.starts_with("nothing to look at"), "{error}");
}

#[test]
fn a_program_that_makes_no_sense_is_no_program_of_ours() {
    let place = Place::new("nonsense");
    let program = place.program("rte", "dpdk_telemetry.v2", 81, 1, |_| "}{".to_owned());
    assert!(place.find(&Choice::default()).unwrap_err().contains("pid 81"));
    program.join().unwrap();
}
