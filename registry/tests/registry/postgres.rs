//! A PostgreSQL server for tests: the one that `setup/postgres` unpacked, in a temporary folder, on loopback.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::sync::OnceCell;

/// Keeps the server on behalf of the test that holds its standard input, so that nothing outlives a test that is killed. Commands, one a
/// line, each answered by one: `start`, `stop` (after the work in hand) and `kill` (at once, as in a crash).
const KEEPER: &str = r#"
set -u
trap '' INT TERM HUP
end() { kill -"$1" "$server" 2>/dev/null && wait "$server" 2>/dev/null; }
server=
while read -r command; do
    case $command in
    start) "$@" </dev/null >>"$FOLDER/log" 2>&1 & server=$! ;;
    stop) end INT ;;
    kill) end QUIT ;;
    esac
    echo done
done
end QUIT
rm -rf "$FOLDER"
"#;

/// Everybody may enter, but for one who needs a password and one who is refused.
const HBA: &str = "host all careful 127.0.0.1/32 scram-sha-256
host all unwanted 127.0.0.1/32 reject
host all all 127.0.0.1/32 trust
";

/// A crash of the server, which is all that tests bring about, loses nothing that the system has taken.
const QUICK: [&str; 3] = ["fsync=off", "full_page_writes=off", "shared_buffers=64MB"];

const SETTINGS: [&str; 3] = ["jit=off", "unix_socket_directories=", "listen_addresses=127.0.0.1"];

const PATIENCE: Duration = Duration::from_secs(30);

/// A running server. It ends when this is dropped or the test's process ends, in whatever way.
pub(crate) struct Server {
    port: u16,
    keeper: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    databases: AtomicU32,
}

/// A database of its own on a server that the tests of this process share; its URL.
pub(crate) async fn database() -> String {
    static SHARED: OnceCell<Server> = OnceCell::const_new();
    SHARED.get_or_init(Server::start).await.database().await
}

/// PostgreSQL refuses to run as root. As root its programs run as nobody, with the right to pass folders of others.
fn program(name: &str) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name(".tools/postgres");
    let path = root.join("bin").join(name);
    assert!(path.exists(), "{} is missing: run `setup/install test`", path.display());
    let path = path.canonicalize().unwrap();
    let mut command = if is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.args(["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]).arg(path);
        command
    } else {
        Command::new(path)
    };
    let libraries = ["x86_64", "aarch64"].map(|machine| root.join(format!("usr/lib/{machine}-linux-gnu")));
    command.env("LD_LIBRARY_PATH", std::env::join_paths(libraries).unwrap());
    command
}

fn is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn give_to_server(folder: &Path) {
    if is_root() {
        std::os::unix::fs::chown(folder, Some(65534), Some(65534)).unwrap();
    }
}

/// The folder of a new server, made once for all tests, as making it takes seconds.
fn template() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("postgres");
    std::fs::create_dir_all(&folder).unwrap();
    let lock = File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    let (data, making) = (folder.join("data"), folder.join("making"));
    if !data.join("PG_VERSION").exists() {
        let _ = std::fs::remove_dir_all(&making);
        std::fs::create_dir(&making).unwrap();
        give_to_server(&making);
        let mut initdb = program("initdb");
        initdb.args([
            "--auth=trust",
            "--username=postgres",
            "--locale=C",
            "--encoding=UTF8",
            "--no-sync",
            "-D",
        ]);
        succeed(initdb.arg(&making));
        std::fs::write(making.join("pg_hba.conf"), HBA).unwrap();
        std::fs::rename(making, &data).unwrap();
    }
    data
}

impl Server {
    /// Starts a server of this test's own.
    pub(crate) async fn start() -> Self {
        Self::start_with(&QUICK).await
    }

    /// Starts a server with further settings.
    pub(crate) async fn start_with(settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap().keep();
        succeed(Command::new("cp").arg("-a").arg(template()).arg(folder.join("data")));
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = program("postgres");
        server.arg("-D").arg(folder.join("data")).args(["-p", &port.to_string()]);
        for setting in SETTINGS.iter().chain(settings) {
            server.args(["-c", setting]);
        }
        let mut keeper = Command::new("bash");
        keeper.args(["-c", KEEPER, "keeper"]).arg(server.get_program()).args(server.get_args());
        keeper.envs(server.get_envs().filter_map(|(name, value)| Some((name, value?))));
        keeper.env("FOLDER", &folder).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        // Out of reach of what ends the test's whole process group.
        let mut keeper = std::os::unix::process::CommandExt::process_group(&mut keeper, 0).spawn().unwrap();
        let commands = keeper.stdin.take();
        let answers = BufReader::new(keeper.stdout.take().unwrap());
        let mut server = Self { port, keeper, commands, answers, databases: AtomicU32::new(0) };
        server.command("start");
        server.wait_until_ready().await;
        server
    }

    fn command(&mut self, command: &str) {
        writeln!(self.commands.as_mut().unwrap(), "{command}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        assert_eq!(answer, "done\n");
    }

    async fn wait_until_ready(&self) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while let Err(error) = PgConnection::connect(&self.url("postgres", "postgres")).await {
            assert!(tokio::time::Instant::now() < deadline, "the server does not start: {error}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Stops it as in a crash; what it holds stays.
    pub(crate) fn kill(&mut self) {
        self.command("kill");
    }

    /// Stops it after the work in hand, as for a restart.
    pub(crate) fn stop(&mut self) {
        self.command("stop");
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Starts it again.
    pub(crate) async fn start_again(&mut self) {
        self.command("start");
        self.wait_until_ready().await;
    }

    /// The URL of a database.
    pub(crate) fn url(&self, user: &str, database: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/{database}", self.port)
    }

    /// Makes a database; its URL.
    pub(crate) async fn database(&self) -> String {
        let name = format!("d{}", self.databases.fetch_add(1, Ordering::Relaxed));
        run(&self.url("postgres", "postgres"), &format!("CREATE DATABASE {name}")).await;
        self.url("postgres", &name)
    }
}

/// Runs one statement.
pub(crate) async fn run(url: &str, sql: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    connection.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
    connection.close().await.unwrap();
}

impl Drop for Server {
    fn drop(&mut self) {
        self.commands = None;
        // The keeper ends once all is gone; a failure to wait has no cure here.
        let _ = self.keeper.wait();
    }
}
