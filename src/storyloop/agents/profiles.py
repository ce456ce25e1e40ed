"""The built-in profiles: one entry for each agent CLI that Storyloop knows.

What the verified entries say was measured on the real programs in the versions they name; the others follow their
vendors' documents and say so wherever they are shown. To add an agent, add its entry; one whose stream is new needs
a dialect as well.
"""

from storyloop.agents.profile import Can, Named, Offline, Permission, Profile, Prompt
from storyloop.core.facts import Failure

_MODEL_KEYS = (
    "ANTHROPIC_API_KEY", "OPENAI_API_KEY", "OPENROUTER_API_KEY", "GEMINI_API_KEY", "DEEPSEEK_API_KEY",
    "GROQ_API_KEY", "MISTRAL_API_KEY", "XAI_API_KEY", "MOONSHOT_API_KEY",
)  # fmt: skip
_DUMMY = "dummy"
_CHAT = {"OPENAI_API_KEY": _DUMMY, "OPENAI_API_BASE": "{base}/v1"}
_LITELLM = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}  # else it asks GitHub for the prices of models at each start

_CLAUDE = Profile(
    name="claude",
    title="Claude Code",
    program="claude",
    install="npm install -g @anthropic-ai/claude-code",
    versions=("2.1.329",),
    dialect="claude",
    argv=("-p", "--output-format", "stream-json", "--verbose", "<model>", "<permission>", "<directories>", "<session>"),
    interactive=("<model>", "{prompt}"),
    named=Named.BY_US,
    begin=("--session-id", "{session}"),
    resume=("--resume", "{session}"),
    # It refuses this to root, unless it is told that a sandbox holds it.
    fenced=Permission(argv=("--dangerously-skip-permissions",), env={"IS_SANDBOX": "1"}),
    # One word: as two, the option would swallow whatever follows it.
    alone=Permission(argv=("--permission-mode", "acceptEdits", "--allowedTools=Bash")),
    directory=("--add-dir={directory}",),
    env={
        "DISABLE_TELEMETRY": "1",
        "DISABLE_ERROR_REPORTING": "1",
        "DISABLE_AUTOUPDATER": "1",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_MAX_RETRIES": "2",
    },
    keys=("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"),
    pass_env=("ANTHROPIC_BASE_URL", "ANTHROPIC_MODEL", "ANTHROPIC_CUSTOM_HEADERS"),
    home=(".claude",),  # it goes without writing .claude.json
    moved_by="CLAUDE_CONFIG_DIR",
    login=(".claude/.credentials.json",),
    can=frozenset({Can.RESUME, Can.USAGE, Can.COST, Can.SCHEMA, Can.MCP, Can.ACP}),
    acp=("claude-agent-acp",),
    offline=Offline(env={"ANTHROPIC_BASE_URL": "{base}", "ANTHROPIC_API_KEY": _DUMMY}),
)

_CODEX = Profile(
    name="codex",
    title="Codex CLI",
    program="codex",
    install="npm install -g @openai/codex",
    versions=("0.169.0",),
    dialect="codex",
    argv=(
        *("exec", "<session>", "--json", "--skip-git-repo-check"),
        *("-c", "analytics.enabled=false", "-c", "check_for_update_on_startup=false"),
        *("<model>", "<permission>", "<directories>", "-"),
    ),
    interactive=("<model>", "{prompt}"),
    resume=("resume", "{session}"),
    model=("-m", "{model}"),
    fenced=Permission(argv=("--dangerously-bypass-approvals-and-sandbox",)),
    # Not `--sandbox`, which `exec resume` does not know. With a home below /tmp it cannot start a command.
    alone=Permission(argv=("-c", 'sandbox_mode="workspace-write"')),
    directory=("-c", 'sandbox_workspace_write.writable_roots=["{directory}"]'),
    keys=("CODEX_API_KEY", "OPENAI_API_KEY"),
    pass_env=("OPENAI_BASE_URL",),
    home=(".codex",),
    moved_by="CODEX_HOME",
    login=(".codex/auth.json",),
    can=frozenset({Can.RESUME, Can.USAGE, Can.SCHEMA, Can.MCP, Can.ACP}),
    acp=("codex-acp",),
    offline=Offline(
        env={"LOCAL_KEY": _DUMMY},
        files={
            ".codex/config.toml": """\
model_provider = "local"
[model_providers.local]
name = "local"
base_url = "{base}/v1"
wire_api = "responses"
env_key = "LOCAL_KEY"
"""
        },
    ),
)

_OPENCODE = Profile(
    name="opencode",
    title="OpenCode",
    program="opencode",
    install="npm install -g opencode-ai",
    versions=("1.18.33",),
    dialect="opencode",
    argv=("run", "--format", "json", "<model>", "<permission>", "<session>"),
    interactive=("<model>", "--prompt", "{prompt}"),
    resume=("--session", "{session}"),
    fenced=Permission(argv=("--auto",)),
    # What it would ask is refused; of these two it would else ask where a user's file says so.
    alone=Permission(env={"OPENCODE_PERMISSION": '{"edit":"allow","bash":"allow"}'}),
    env={
        "OPENCODE_DISABLE_AUTOUPDATE": "1",
        "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
        "OPENCODE_DISABLE_SHARE": "1",
        # Else it waits for a limit to end, and for a model that fails, without a word.
        "OPENCODE_PRINT_LOGS": "1",
        "OPENCODE_LOG_LEVEL": "ERROR",
    },
    keys=(*_MODEL_KEYS, "OPENCODE_API_KEY"),
    pass_env=("OPENCODE_CONFIG", "OPENCODE_CONFIG_CONTENT", "OPENCODE_CONFIG_DIR", "OPENCODE_DISABLE_MODELS_FETCH"),
    home=(".local/share/opencode", ".local/state/opencode", ".config/opencode", ".cache/opencode"),
    login=(".local/share/opencode/auth.json",),
    can=frozenset({Can.RESUME, Can.USAGE, Can.COST, Can.MCP, Can.ACP}),
    acp=("opencode", "acp"),
    offline=Offline(
        env={"OPENCODE_DISABLE_MODELS_FETCH": "1"},
        files={
            ".config/opencode/opencode.json": """\
{"autoupdate": false, "share": "disabled", "small_model": "local/{model}", "provider": {"local": {
  "npm": "@ai-sdk/openai-compatible", "name": "local", "options": {"baseURL": "{base}/v1", "apiKey": "dummy"},
  "models": {"{model}": {"name": "{model}", "tool_call": true, "limit": {"context": 200000, "output": 8000},
    "cost": {"input": 1, "output": 5, "cache_read": 0.1}}}}}}
"""
        },
        model="local/{model}",
    ),
)

_GEMINI = Profile(
    name="gemini",
    title="Gemini CLI",
    program="gemini",
    install="npm install -g @google/gemini-cli",
    versions=("0.61.0",),
    dialect="gemini",
    argv=("-o", "stream-json", "<model>", "<permission>", "<directories>", "<session>"),
    interactive=("<model>", "-i", "{prompt}"),
    named=Named.BY_US,
    begin=("--session-id", "{session}"),
    resume=("--resume", "{session}"),
    model=("-m", "{model}"),
    fenced=Permission(argv=("--approval-mode", "yolo")),
    alone=Permission(argv=("--approval-mode", "auto_edit", "--allowed-tools=run_shell_command")),
    directory=("--include-directories={directory}",),
    env={
        "GEMINI_CLI_TRUST_WORKSPACE": "true",  # else it ends with status 55 and no word on stdout
        "GEMINI_TELEMETRY_ENABLED": "false",
        "GEMINI_CLI_SYSTEM_DEFAULTS_PATH": "{private}/gemini.json",
    },
    papers={
        "gemini.json": '{"privacy": {"usageStatisticsEnabled": false},'
        ' "general": {"enableAutoUpdate": false, "enableAutoUpdateNotification": false, "maxAttempts": 3}}\n'
    },
    keys=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    pass_env=("GOOGLE_GEMINI_BASE_URL", "GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_LOCATION", "GOOGLE_GENAI_USE_VERTEXAI"),
    home=(".gemini",),
    login=(".gemini/oauth_creds.json",),
    # An HTTP status modulo 256.
    exits={144: Failure.CONFIG, 145: Failure.AUTH, 147: Failure.AUTH, 148: Failure.CONFIG, 173: Failure.LIMIT},
    can=frozenset({Can.RESUME, Can.USAGE, Can.MCP, Can.ACP}),
    acp=("gemini", "--acp"),
    offline=Offline(
        env={"GEMINI_API_KEY": _DUMMY, "GOOGLE_GEMINI_BASE_URL": "{base}"},
        files={".gemini/settings.json": '{"security": {"auth": {"selectedType": "gemini-api-key"}}}\n'},
    ),
)

_QWEN = Profile(
    name="qwen",
    title="Qwen Code",
    program="qwen",
    install="npm install -g @qwen-code/qwen-code",
    versions=("0.24.4",),
    dialect="qwen",
    argv=("-o", "stream-json", "<model>", "<permission>", "<directories>", "<session>"),
    interactive=("<model>", "-i", "{prompt}"),
    named=Named.BY_US,
    begin=("--session-id", "{session}"),
    resume=("--resume", "{session}"),
    model=("-m", "{model}"),
    fenced=Permission(argv=("--approval-mode", "yolo")),
    alone=Permission(argv=("--approval-mode", "auto-edit", "--allowed-tools=run_shell_command")),
    directory=("--include-directories={directory}",),
    env={"QWEN_CODE_SYSTEM_DEFAULTS_PATH": "{private}/qwen.json", "QWEN_CODE_DISABLE_AUTO_UPDATE": "1"},
    papers={
        "qwen.json": '{"privacy": {"usageStatisticsEnabled": false}, "general": {"enableAutoUpdate": false},'
        ' "model": {"generationConfig": {"maxRetries": 2}}}\n'
    },
    keys=("OPENAI_API_KEY", "DASHSCOPE_API_KEY"),
    pass_env=("OPENAI_BASE_URL", "OPENAI_MODEL"),
    home=(".qwen",),
    moved_by="QWEN_HOME",
    login=(".qwen/oauth_creds.json",),
    can=frozenset({Can.RESUME, Can.USAGE, Can.SCHEMA, Can.MCP, Can.ACP}),
    acp=("qwen", "--acp"),
    offline=Offline(
        env={"OPENAI_API_KEY": _DUMMY, "OPENAI_BASE_URL": "{base}/v1", "OPENAI_MODEL": "{model}"},
        files={".qwen/settings.json": '{"security": {"auth": {"selectedType": "openai"}}}\n'},
    ),
)

_COPILOT = Profile(
    name="copilot",
    title="Copilot CLI",
    program="copilot",
    install="npm install -g @github/copilot",
    versions=("1.0.102",),
    dialect="copilot",
    argv=(
        *("--output-format", "json", "--no-auto-update", "--disable-client-telemetry", "--no-ask-user"),
        *("<model>", "<permission>", "<directories>", "<session>"),
    ),
    interactive=("<model>", "-i", "{prompt}"),
    named=Named.BY_US,  # it tells its id with its last event only
    begin=("--session-id={session}",),
    resume=("--resume={session}",),
    fenced=Permission(argv=("--allow-all-tools", "--allow-all-paths")),
    alone=Permission(argv=("--allow-all-tools",)),
    directory=("--add-dir={directory}",),
    env={"COPILOT_AUTO_UPDATE": "false"},
    keys=("COPILOT_GITHUB_TOKEN", "COPILOT_PROVIDER_API_KEY"),
    pass_env=("COPILOT_MODEL", "COPILOT_OFFLINE", "COPILOT_PROVIDER_BASE_URL", "COPILOT_PROVIDER_TYPE"),
    home=(".copilot", ".cache/copilot"),
    moved_by="COPILOT_HOME",
    can=frozenset({Can.RESUME, Can.MCP, Can.ACP}),
    acp=("copilot", "--acp"),
    offline=Offline(
        env={
            "COPILOT_OFFLINE": "true",
            "COPILOT_MODEL": "{model}",
            "COPILOT_PROVIDER_API_KEY": _DUMMY,
            "COPILOT_PROVIDER_BASE_URL": "{base}/v1",
        }
    ),
)

_PI = Profile(
    name="pi",
    title="Pi",
    program="pi",
    install="npm install -g @mariozechner/pi-coding-agent",
    versions=("0.73.1",),
    dialect="pi",
    argv=("-p", "--mode", "json", "<model>", "<session>"),
    interactive=("<model>", "{prompt}"),
    resume=("--session", "{session}"),
    env={"PI_SKIP_VERSION_CHECK": "1", "PI_TELEMETRY": "0"},
    keys=_MODEL_KEYS,
    pass_env=("PI_OFFLINE",),
    home=(".pi",),
    login=(".pi/agent/auth.json",),
    can=frozenset({Can.RESUME, Can.USAGE, Can.COST}),
    offline=Offline(
        env={"PI_OFFLINE": "1", "LOCAL_KEY": _DUMMY},
        files={
            ".pi/agent/models.json": """\
{"providers": {"local": {"baseUrl": "{base}/v1", "api": "openai-completions", "apiKey": "LOCAL_KEY", "models": [
  {"id": "{model}", "name": "{model}", "reasoning": false, "input": ["text"], "contextWindow": 200000,
   "maxTokens": 8000, "cost": {"input": 1, "output": 5, "cacheRead": 0.1, "cacheWrite": 1}}]}}}
"""
        },
        model="local/{model}",
    ),
)

_KIMI = Profile(
    name="kimi",
    title="Kimi Code",
    program="kimi",
    install="npm install -g @moonshot-ai/kimi-code",
    versions=("2.1.0",),
    dialect="kimi",
    argv=("--output-format", "stream-json", "<model>", "<directories>", "<session>", "-p", "{prompt}"),
    prompt=Prompt.FILE,
    resume=("--session", "{session}"),
    model=("-m", "{model}"),
    directory=("--add-dir", "{directory}"),
    env={"KIMI_CODE_NO_AUTO_UPDATE": "1", "KIMI_DISABLE_TELEMETRY": "1"},
    keys=("KIMI_API_KEY",),
    pass_env=("KIMI_CODE_BASE_URL",),
    home=(".kimi-code",),
    moved_by="KIMI_CODE_HOME",
    login=(".kimi-code/credentials",),
    can=frozenset({Can.RESUME, Can.MCP, Can.ACP}),
    acp=("kimi", "acp"),
    offline=Offline(
        files={
            ".kimi-code/config.toml": """\
default_model = "{model}"
telemetry = false
[providers.local]
type = "openai"
base_url = "{base}/v1"
api_key = "dummy"
[models."{model}"]
provider = "local"
model = "{model}"
max_context_size = 200000
"""
        }
    ),
)

_AIDER = Profile(
    name="aider",
    title="aider",
    program="aider",
    install="uv tool install aider-chat",
    versions=("0.86.2",),
    dialect="plain",
    argv=(
        *("--yes-always", "--no-pretty", "--no-stream", "--no-auto-commits", "--no-dirty-commits", "--no-gitignore"),
        *("--no-check-update", "--analytics-disable", "--no-detect-urls", "--no-show-release-notes"),
        *("--no-show-model-warnings", "--chat-history-file", "{private}/aider.chat.md"),
        *("--input-history-file", "{private}/aider.input", "<model>", "--message-file", "{private}/prompt.md"),
    ),
    prompt=Prompt.FILE,
    named=Named.BY_NOBODY,
    # It gives up an edit when a new file cannot be added to git, which is read-only in the sandbox.
    fenced=Permission(
        env={
            "GIT_INDEX_FILE": "{private}/aider.index",
            "GIT_OBJECT_DIRECTORY": "{private}",
            "GIT_ALTERNATE_OBJECT_DIRECTORIES": "{objects}",
        }
    ),
    env={**_LITELLM, "AIDER_ANALYTICS": "false", "AIDER_CHECK_UPDATE": "false"},
    keys=_MODEL_KEYS,
    pass_env=("OPENAI_API_BASE", "OPENAI_BASE_URL", "ANTHROPIC_BASE_URL"),
    home=(".aider",),
    litter=(".aider.tags.cache.v4",),
    can=frozenset({Can.USAGE, Can.COST}),
    edits_by_text=True,
    offline=Offline(env=_CHAT, model="openai/{model}"),
)

_MINI = Profile(
    name="mini",
    title="mini-swe-agent",
    program="mini",
    install="uv tool install mini-swe-agent --with mcp",  # every call of its model library fails without mcp
    versions=("2.4.6",),
    version=("--help",),
    dialect="plain",
    argv=("-y", "--exit-immediately", "-l", "0", "-o", "{private}/mini.json", "<model>", "-t", "{prompt}"),
    prompt=Prompt.FILE,
    named=Named.BY_NOBODY,
    model=("-m", "{model}"),
    env={
        **_LITELLM,
        "MSWEA_CONFIGURED": "true",
        "MSWEA_COST_TRACKING": "ignore_errors",
        "MSWEA_MODEL_RETRY_STOP_AFTER_ATTEMPT": "3",
        "TYPER_STANDARD_TRACEBACK": "1",  # else why it failed stands in a frame, and is broken into lines
    },
    keys=_MODEL_KEYS,
    pass_env=("OPENAI_API_BASE", "OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "MSWEA_MODEL_NAME"),
    home=(".config/mini-swe-agent",),
    offline=Offline(env=_CHAT, model="openai/{model}"),
)

# --- by their vendors' documents -------------------------------------------------------------------------

_CURSOR = Profile(
    name="cursor-agent",
    title="Cursor",
    program="cursor-agent",
    install="see Cursor's page; packages of that name are others'",
    verified=False,
    dialect="claude",
    argv=("-p", "--output-format", "stream-json", "<model>", "<permission>", "<session>", "{prompt}"),
    prompt=Prompt.FILE,
    resume=("--resume={session}",),
    fenced=Permission(argv=("--force",)),
    alone=Permission(argv=("--force",)),
    keys=("CURSOR_API_KEY",),
    home=(".cursor", ".config/cursor"),
    login=(".config/cursor/auth.json",),
    can=frozenset({Can.RESUME, Can.ACP}),
    acp=("cursor-agent", "acp"),
)

_AMP = Profile(
    name="amp",
    title="Amp",
    program="amp",
    install="npm install -g @sourcegraph/amp",
    verified=False,
    dialect="claude",
    argv=("<session>", "-x", "--stream-json", "--no-notifications", "<permission>"),
    resume=("threads", "continue", "{session}"),
    model=(),
    fenced=Permission(argv=("--dangerously-allow-all",)),
    alone=Permission(argv=("--dangerously-allow-all",)),
    keys=("AMP_API_KEY",),
    pass_env=("AMP_URL",),
    home=(".local/share/amp", ".config/amp", ".cache/amp"),
    login=(".local/share/amp/secrets.json",),
    can=frozenset({Can.RESUME, Can.USAGE, Can.MCP}),
)

_GOOSE = Profile(
    name="goose",
    title="Goose",
    program="goose",
    install="see Goose's page; the package goose-ai is another's",
    verified=False,
    dialect="plain",
    argv=("run", "-q", "<session>", "<model>", "-i", "-"),
    named=Named.BY_US,
    begin=("--name", "{session}"),
    resume=("--name", "{session}", "--resume"),
    fenced=Permission(env={"GOOSE_MODE": "auto"}),
    alone=Permission(env={"GOOSE_MODE": "auto"}),
    env={"GOOSE_TELEMETRY_ENABLED": "false"},
    keys=_MODEL_KEYS,
    pass_env=("GOOSE_PROVIDER", "GOOSE_MODEL"),
    home=(".config/goose", ".local/share/goose", ".local/state/goose"),
    login=(".config/goose/config.yaml",),
    can=frozenset({Can.RESUME, Can.MCP, Can.ACP}),
    acp=("goose", "acp"),
)

_CRUSH = Profile(
    name="crush",
    title="Crush",
    program="crush",
    install="npm install -g @charmland/crush",
    verified=False,
    dialect="plain",
    argv=("run", "-q", "<model>"),
    named=Named.BY_NOBODY,
    env={"CRUSH_DISABLE_METRICS": "1", "CRUSH_DISABLE_PROVIDER_AUTO_UPDATE": "1"},
    keys=_MODEL_KEYS,
    home=(".local/share/crush", ".config/crush", ".cache/crush"),
)

_KIRO = Profile(
    name="kiro",
    title="Kiro",
    program="kiro-cli",
    install="see Kiro's page",
    verified=False,
    dialect="plain",
    argv=("chat", "--no-interactive", "<permission>", "<model>", "{prompt}"),
    prompt=Prompt.FILE,
    named=Named.BY_NOBODY,
    fenced=Permission(argv=("--trust-all-tools",)),
    alone=Permission(argv=("--trust-tools=fs_read,fs_write,execute_bash",)),
    home=(".kiro", ".local/share/kiro-cli"),
    login=(".local/share/kiro-cli/data.sqlite3",),
    can=frozenset({Can.ACP}),
    acp=("kiro-cli", "acp"),
)

PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        *(_CLAUDE, _CODEX, _OPENCODE, _GEMINI, _QWEN, _COPILOT, _PI, _KIMI, _AIDER, _MINI),
        *(_CURSOR, _AMP, _GOOSE, _CRUSH, _KIRO),
    )
}
