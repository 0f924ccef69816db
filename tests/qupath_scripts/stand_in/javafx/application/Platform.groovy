package javafx.application

/** One thread is enough here: what is to run later runs now. */
class Platform {
    static boolean isFxApplicationThread() { return true }
    static void runLater(Runnable task) { task.run() }
}
