//! One end at another machine, over a real sshd on loopback.

use std::fs;

use super::super::rig::{BASE, Ran, SYNC, Sshd};
use super::super::tree::{self, assert_same};
use super::{Vault, assert_whole};

/// A vault and an sshd, with a home that knows it.
struct Net {
    vault: Vault,
    sshd: Sshd,
}

impl Net {
    fn new(vault: Vault) -> Net {
        let sshd = Sshd::start();
        let ssh = vault.rig.path("home/.ssh");
        fs::create_dir_all(&ssh).unwrap();
        fs::write(ssh.join("known_hosts"), sshd.known()).unwrap();
        fs::copy(sshd.path("key"), ssh.join("id_ed25519")).unwrap();
        Net { vault, sshd }
    }

    /// The option by which the other end is reached.
    fn shell(&self) -> String {
        format!("-e '{}'", self.sshd.ssh().trim_end_matches(" slave"))
    }

    fn run(&self, command: &str) -> Ran {
        let mut command = self.vault.rig.sh(command);
        command.env("HOME", self.vault.rig.path("home")).env_remove("SSH_AUTH_SOCK");
        Ran::from(command.output().unwrap())
    }

    #[track_caller]
    fn ok(&self, arguments: &str) -> Ran {
        let ran = self.run(&format!("$BASE {arguments}"));
        assert_eq!(ran.code, 0, "{arguments}: {ran:?}");
        ran
    }

    /// What the record of a base says of its source.
    fn source(&self, name: &str) -> String {
        let text = fs::read_to_string(self.vault.bases().join(name).join("base.toml")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("source = ")).unwrap();
        line.trim_matches('"').to_owned()
    }
}

fn host() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_owned()
}

#[test]
fn a_base_is_pulled_and_pushed_and_says_from_where() {
    let net = Net::new(Vault::empty());
    let (vault, shell) = (&net.vault, net.shell());
    tree::small(&vault.src());
    vault.write("late", "1");
    let (src, archive) = (vault.src(), vault.rig.path("archive"));
    let (src, archive, port) = (src.display(), archive.display(), net.sshd.port);
    let url = format!("ssh://127.0.0.1:{port}");
    let pushed = format!("{}:{src}", host());
    for (name, line, source) in [
        ("pulled", format!("{shell} --remote-command {SYNC} slave:{src} archive"), format!("slave:{src}")),
        ("pulled-by-url", format!("--remote-command {SYNC} {url}{src} archive"), format!("{url}{src}")),
        ("pushed", format!("{shell} --remote-command {BASE} src slave:{archive}"), pushed.clone()),
        ("pushed-by-url", format!("--remote-command {BASE} src {url}{archive}"), pushed),
    ] {
        // Hot passes are made by the end with the archive, and told here.
        let freeze = format!("--freeze 'echo x >>{src}/late' --thaw true");
        let ran = net.ok(&format!("-v --name {name} --reason 'so it is' --progress {freeze} {line}"));
        assert_eq!(ran.out, format!("{name} -\n"));
        assert!(ran.err.starts_with("repl-base: hot pass 1: "), "{ran:?}");
        assert!(ran.err.lines().all(|line| line.starts_with("repl-base: ")), "{ran:?}");
        assert_same(&vault.src(), &vault.data(name));
        assert_whole(&vault.bases().join(name));
        assert_eq!(net.source(name), source);
        let text = fs::read_to_string(vault.bases().join(name).join("base.toml")).unwrap();
        assert!(text.contains("reason = \"so it is\""), "{text}");
    }
    assert_eq!(vault.names(), vault.listed());
    let before = vault.state("archive");
    let ran = net.ok(&format!("-n {shell} --remote-command {BASE} src slave:{archive}"));
    assert!(ran.err.contains("0 bytes would be sent"), "{ran:?}");
    assert_eq!(vault.state("archive"), before);
    net.run(&format!("$BASE {shell} slave:{src} slave:{archive}")).fails(2, "must be here");
    // A user and a server at the source are no matter of the archive's end.
    net.ok(&format!("--run-as nobody --dsn /no/such.cnf {shell} --remote-command {BASE} src slave:{archive}"));
}

#[test]
fn a_restricted_key_can_add_bases_below_its_root_and_do_nothing_else() {
    let net = Net::new(Vault::some());
    let (vault, shell) = (&net.vault, net.shell());
    fs::create_dir(vault.rig.path("root")).unwrap();
    fs::create_dir(vault.rig.path("secret")).unwrap();
    std::os::unix::fs::symlink("../secret", vault.rig.path("root/way-out")).unwrap();
    let root = vault.rig.path("root");
    net.sshd.force(&format!("restrict,command=\"{BASE} --server --restrict {}\"", root.display()));
    net.ok(&format!("--name one {shell} src slave:archive"));
    vault.write("a", "changed");
    net.ok(&format!("--name two {shell} src slave:{}/archive", root.display()));
    assert_same(&vault.src(), &root.join("archive/bases/two/data"));
    let before = vault.state("root secret");
    for to in ["../secret", "way-out", "way-out/new", "/", "/tmp"] {
        net.run(&format!("$BASE {shell} src slave:{to}")).fails(5, "");
    }
    net.run(&format!("$BASE --adopt {shell} src slave:archive")).fails(2, "--restrict");
    net.run(&format!("$BASE --name one {shell} src slave:archive")).fails(13, "--name");
    // Nothing is read there, nothing but a base is made, and no other command is served.
    net.run(&format!("$BASE {shell} slave:archive mine")).fails(2, "repl-sync gives a source");
    net.run(&format!("$SYNC {shell} --delete src slave:archive")).fails(2, "the other end's command line");
    let without_lock = |state: String| state.lines().filter(|line| !line.contains("/.lock ")).collect::<String>();
    assert_eq!(without_lock(vault.state("root secret")), without_lock(before));
    // Nor does a key for syncs make one of a base.
    net.sshd.force(&format!("restrict,command=\"{SYNC} --server --restrict {}\"", root.display()));
    net.run(&format!("$BASE {shell} src slave:new")).fails(2, "--name");
    assert!(!root.join("new").exists());
}
