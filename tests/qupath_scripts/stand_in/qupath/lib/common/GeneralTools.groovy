package qupath.lib.common

class GeneralTools {
    static String getVersion() { return 'stand-in' }
}
