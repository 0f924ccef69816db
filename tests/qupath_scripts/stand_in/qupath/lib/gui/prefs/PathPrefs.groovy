package qupath.lib.gui.prefs

class PathPrefs {
    static String startupScript
    static Object startupScriptProperty() { return new Expando(get: { startupScript }) }
}
