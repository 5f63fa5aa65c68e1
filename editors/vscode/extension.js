// Starts `qcc lsp`, and shows the reports that qcc writes. Everything about the language is the server's.
const vscode = require("vscode");
const { LanguageClient } = require("vscode-languageclient/node");

let client;

function activate(context) {
    const settings = vscode.workspace.getConfiguration("qcc");
    const [command, ...args] = settings.get("command");
    client = new LanguageClient(
        "qcc",
        "qcc",
        { command, args },
        {
            documentSelector: [{ scheme: "file", language: "qpolicy" }, { scheme: "untitled", language: "qpolicy" }],
            initializationOptions: { model: settings.get("model") },
            synchronize: { fileEvents: vscode.workspace.createFileSystemWatcher("**/*.qpolicy") },
        },
    );
    context.subscriptions.push(vscode.commands.registerCommand("qcc.showReport", showReport));
    return client.start();
}

// The report is one file that asks for nothing else, so its text alone fills the panel.
async function showReport(uri) {
    const chosen = uri ?? (await vscode.window.showOpenDialog({ filters: { Reports: ["html"] } }))?.[0];
    if (!chosen) {
        return;
    }
    const text = Buffer.from(await vscode.workspace.fs.readFile(chosen)).toString("utf8");
    const title = chosen.path.split("/").pop();
    const panel = vscode.window.createWebviewPanel("qcc.report", title, vscode.ViewColumn.Beside, { enableScripts: true });
    panel.webview.html = text;
}

function deactivate() {
    return client?.stop();
}

module.exports = { activate, deactivate };
