//! Builds the C shim by Meson (`meson-deps/`), generates the bindings, tells cargo what to link.
//!
//! With `DPDK_PREFIX` set, Meson is not called: the prefix must hold an installed `meson-deps`
//! build (`lib/…/pkgconfig/dpdk-shim.pc`), of either mode.

use std::env;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

/// What a machine needs, as one line to paste.
const APT: &str = "sudo apt-get install gcc libc6-dev meson ninja-build pkg-config libdpdk-dev \
                   libclang-dev (or run scripts/install-deps)";

/// Libraries whose functions the bindings and the shim call. The drivers are not among them: the
/// EAL opens the shared ones itself.
const LIBRARIES: [&str; 9] = [
    "rte_eal",
    "rte_ethdev",
    "rte_ip_frag",
    "rte_mbuf",
    "rte_mempool",
    "rte_ring",
    "rte_net_ring",
    "rte_bus_vdev",
    "rte_telemetry",
];

const FUNCTIONS: [&str; 40] = [
    "pqs_.*",
    "rte_eal_init",
    "rte_eal_cleanup",
    "rte_eal_process_type",
    "rte_strerror",
    "rte_version",
    "rte_get_tsc_hz",
    "rte_thread_register",
    "rte_thread_unregister",
    "rte_lcore_count",
    "rte_lcore_index",
    "rte_lcore_is_enabled",
    "rte_lcore_to_socket_id",
    "rte_mempool_avail_count",
    "rte_mempool_in_use_count",
    "rte_mempool_free",
    "rte_pktmbuf_pool_create",
    "rte_eth_dev_count_avail",
    "rte_eth_find_next_owned_by",
    "rte_eth_dev_get_port_by_name",
    "rte_eth_dev_get_name_by_port",
    "rte_eth_dev_is_valid_port",
    "rte_eth_dev_start",
    "rte_eth_dev_stop",
    "rte_eth_dev_close",
    "rte_eth_dev_get_mtu",
    "rte_eth_dev_set_mtu",
    "rte_eth_promiscuous_disable",
    "rte_eth_promiscuous_enable",
    "rte_eth_promiscuous_get",
    "rte_eth_stats_get",
    "rte_eth_stats_reset",
    "rte_eth_from_rings",
    "rte_ring_free",
    "rte_telemetry_register_cmd",
    "rte_tel_data_start_dict",
    "rte_tel_data_add_dict_string",
    "rte_tel_data_add_dict_container",
    "rte_tel_data_alloc",
    "rte_tel_data_free",
];

const TYPES: [&str; 2] = ["pqs_.*", "rte_eth_stats"];

const VARIABLES: [&str; 8] = [
    "PQS_.*",
    "RTE_MBUF_F_RX_(IP|L4)_CKSUM_.*",
    "RTE_MBUF_F_RX_RSS_HASH",
    "RTE_MBUF_F_RX_VLAN_STRIPPED",
    "RTE_MBUF_F_(INDIRECT|EXTERNAL)",
    "RTE_ETH_NAME_MAX_LEN",
    "RTE_MEMPOOL_NAMESIZE",
    "RTE_ETH_SPEED_NUM_UNKNOWN",
];

fn main() {
    for variable in ["DPDK_PREFIX", "PKG_CONFIG_PATH", "LIBCLANG_PATH"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    for path in ["build.rs", "shim", "../meson-deps/meson.build", "../meson-deps/meson_options.txt"]
    {
        println!("cargo::rerun-if-changed={path}");
    }

    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let prefix = match env::var_os("DPDK_PREFIX") {
        Some(prefix) => PathBuf::from(prefix),
        None => build_shim(&package.join("../meson-deps"), &out),
    };
    let config = PkgConfig::of(&prefix);
    bindings(&config, &package, &out);
    link(&config);
}

/// Runs Meson: the installed DPDK, the shim into a prefix below `out`.
fn build_shim(meson_deps: &Path, out: &Path) -> PathBuf {
    let (build, prefix) = (out.join("meson"), out.join("prefix"));
    if !runs("pkg-config", &["--atleast-version=22.11", "libdpdk"]) {
        missing("found no DPDK of version 22.11 or newer by pkg-config (module libdpdk)");
    }
    for tool in ["meson", "ninja"] {
        if !runs(tool, &["--version"]) {
            missing(&format!("the program {tool} is missing"));
        }
    }
    // A set-up that was interrupted is begun anew, and so is one of a checkout that has moved since, or
    // that shares its target directory with this one: Meson remembers where its sources were.
    let set_up_for = build.join("set-up-for");
    if std::fs::read(&set_up_for).ok().as_deref() != Some(meson_deps.as_os_str().as_bytes()) {
        let _ = std::fs::remove_dir_all(&build);
        run(Command::new("meson").args(["setup", "--libdir", "lib", "--prefix"]).args([
            &prefix,
            &build,
            &meson_deps.to_path_buf(),
        ]));
        std::fs::write(&set_up_for, meson_deps.as_os_str().as_bytes())
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", set_up_for.display()));
    }
    run(Command::new("meson").args(["install", "--only-changed", "-C"]).arg(&build));
    prefix
}

/// What pkg-config says of `dpdk-shim`. The pkg-config crate is no help here: it drops `-march` and
/// `-include`, and cannot express archives to be linked as a whole.
struct PkgConfig {
    path: PathBuf,
}

impl PkgConfig {
    fn of(prefix: &Path) -> Self {
        let found = ["lib", "lib64", "lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu"]
            .iter()
            .map(|lib| prefix.join(lib).join("pkgconfig"))
            .find(|dir| dir.join("dpdk-shim.pc").exists());
        match found {
            Some(path) => Self { path },
            None => fail(&format!(
                "{} holds no dpdk-shim.pc: install meson-deps there first (meson setup build \
                 meson-deps --prefix …; ninja -C build install), or unset DPDK_PREFIX",
                prefix.display()
            )),
        }
    }

    fn ask(&self, arguments: &[&str]) -> Vec<String> {
        self.ask_about("dpdk-shim", arguments)
    }

    fn ask_about(&self, module: &str, arguments: &[&str]) -> Vec<String> {
        let mut search = self.path.clone().into_os_string();
        if let Some(more) = env::var_os("PKG_CONFIG_PATH") {
            search.push(":");
            search.push(more);
        }
        let output = Command::new("pkg-config")
            .env("PKG_CONFIG_PATH", search)
            .args(arguments)
            .arg(module)
            .output();
        match output {
            Ok(output) if output.status.success() => {
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                text.split_whitespace().map(str::to_owned).collect()
            }
            Ok(output) => fail(&format!(
                "pkg-config {} {module}: {}",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ")
            )),
            Err(_) => missing("the program pkg-config is missing"),
        }
    }
}

fn bindings(config: &PkgConfig, package: &Path, out: &Path) {
    // bindgen panics if it cannot load the library; say what to do instead.
    std::panic::set_hook(Box::new(|_| {}));
    let found = std::panic::catch_unwind(bindgen::clang_version).is_ok();
    drop(std::panic::take_hook());
    if !found {
        missing("found no libclang, with which bindgen reads DPDK's headers");
    }
    let builder = bindgen::Builder::default()
        .header(package.join("shim/shim.h").to_string_lossy())
        // -march changes the C code, never the bindings; clang need not know the CPU's name.
        .clang_args(config.ask(&["--cflags"]).iter().filter(|flag| !flag.starts_with("-march")))
        .use_core()
        .layout_tests(true)
        .generate_comments(false)
        .prepend_enum_name(false)
        .derive_default(true)
        // Reached through pointers only; their layout is DPDK's business.
        .opaque_type("rte_mempool")
        .opaque_type("rte_ring")
        .opaque_type("rte_mbuf")
        .opaque_type("rte_tel_data")
        .blocklist_type("rte_mempool")
        .blocklist_type("rte_ring")
        .blocklist_type("rte_mbuf")
        .blocklist_type("rte_tel_data")
        .raw_line("/// A packet buffer; fields by the PQS_OFF_ constants.")
        .raw_line(
            "#[repr(C, align(64))] pub struct rte_mbuf { _opaque: [u8; PQS_MBUF_SIZE as usize] }",
        )
        .raw_line("/// A pool of buffers; reached through pointers only.")
        .raw_line("#[repr(C)] pub struct rte_mempool { _opaque: [u8; 0] }")
        .raw_line("/// A ring of pointers; reached through pointers only.")
        .raw_line("#[repr(C)] pub struct rte_ring { _opaque: [u8; 0] }")
        .raw_line("/// An answer that is being made; reached through pointers only.")
        .raw_line("#[repr(C)] pub struct rte_tel_data { _opaque: [u8; 0] }")
        // RTE_BIT64 and the like are expressions, which bindgen drops without this.
        .clang_macro_fallback()
        .clang_macro_fallback_build_dir(out);
    let builder = FUNCTIONS.iter().fold(builder, |b, name| b.allowlist_function(name));
    let builder = TYPES.iter().fold(builder, |b, name| b.allowlist_type(name));
    let builder = VARIABLES.iter().fold(builder, |b, name| b.allowlist_var(name));
    match builder.generate() {
        Ok(bindings) => bindings.write_to_file(out.join("bindings.rs")).expect("OUT_DIR is ours"),
        Err(error) => fail(&format!(
            "bindgen cannot read DPDK's headers ({})",
            error.to_string().trim().replace('\n', "; ")
        )),
    }
}

fn link(config: &PkgConfig) {
    for flag in config.ask(&["--static", "--libs-only-L"]) {
        if let Some(path) = flag.strip_prefix("-L") {
            println!("cargo::rustc-link-search=native={path}");
        }
    }
    println!("cargo::rustc-link-lib=static=dpdk_shim");
    if env::var_os("CARGO_FEATURE_STATIC").is_none() {
        // Its shared objects would not find each other: the drivers they open bring in the system's.
        if config.path.join("libdpdk.pc").exists() {
            fail(
                "DPDK_PREFIX holds a DPDK of its own, which must be linked with the feature static",
            );
        }
        for library in LIBRARIES {
            println!("cargo::rustc-link-lib=dylib={library}");
        }
        return;
    }
    // pkg-config leaves the system's own directory out, where rustc looks for archives only if told.
    for path in config.ask_about("libdpdk", &["--variable=libdir"]) {
        println!("cargo::rustc-link-search=native={path}");
    }
    let mut whole = false;
    let mut seen = Vec::new();
    for flag in config.ask(&["--static", "--libs"]) {
        match flag.as_str() {
            "-Wl,--whole-archive" => whole = true,
            "-Wl,--no-whole-archive" => whole = false,
            // Brought by libpcap's own description, used by nothing here.
            "-ldbus-1" | "-lsystemd" | "-ldpdk_shim" => {}
            flag => {
                let Some(name) = flag.strip_prefix("-l") else { continue };
                // DPDK's own, spelt in either way, are always archives.
                let archive = name
                    .strip_prefix(":lib")
                    .and_then(|file| file.strip_suffix(".a"))
                    .or_else(|| name.starts_with("rte_").then_some(name));
                // Not bundled: copying a hundred archives into this crate's takes minutes.
                let line = match archive {
                    Some(archive) if whole && !is_wanted(archive) => continue,
                    Some(archive) if whole => format!("static:+whole-archive,-bundle={archive}"),
                    Some(archive) => format!("static:-bundle={archive}"),
                    None => format!("dylib={name}"),
                };
                // The archives are listed twice, as a whole and for their symbols.
                let key = archive.unwrap_or(name).to_owned();
                if !seen.contains(&key) {
                    seen.push(key);
                    println!("cargo::rustc-link-lib={line}");
                }
            }
        }
    }
}

/// Whether a driver has to do with Ethernet ports. A distribution's DPDK has dozens for crypto,
/// compression, events and base stations besides.
fn is_wanted(driver: &str) -> bool {
    ["rte_bus_", "rte_common_", "rte_mempool_", "rte_net_"]
        .iter()
        .any(|kind| driver.starts_with(kind))
}

fn runs(program: &str, arguments: &[&str]) -> bool {
    let output = Command::new(program).args(arguments.iter().map(OsStr::new)).output();
    output.is_ok_and(|output| output.status.success())
}

/// Runs a command whose failure ends the build, with the last thing it said.
fn run(command: &mut Command) {
    let name = command.get_program().to_string_lossy().into_owned();
    match command.output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            let last =
                said.lines().rev().find(|line| line.contains("ERROR") || line.contains("error"));
            eprintln!("{said}");
            fail(&format!("{name} failed ({})", last.unwrap_or("see above").trim()));
        }
        Err(_) => missing(&format!("the program {name} is missing")),
    }
}

/// Ends the build because something is not installed: one sentence, and the line to run.
fn missing(what: &str) -> ! {
    fail(&format!("{what}; on Debian or Ubuntu: {APT}"))
}

/// Ends the build with one sentence.
fn fail(what: &str) -> ! {
    println!("cargo::error={what}");
    exit(1)
}
