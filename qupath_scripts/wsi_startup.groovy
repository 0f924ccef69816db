/*
 * wsi_pipeline: what QuPath (0.5 to 0.7) runs at each start, so that nobody has to think of it.
 *
 * How to install it: keep this file together with wsi_event_log.groovy and wsi_review.groovy in a folder of this
 * computer, and choose it in Edit > Preferences > General > Startup script (or -Dqupath.startup.script=FILE).
 * QuPath 0.4 has no startup script for this: run the others from Automate > Project scripts there.
 *
 * It adds the menu Extensions > Review study: the review queue, the time log with a tick that says whether it is on,
 * and what is recorded. In a project without the file wsi_pipeline.json nothing is recorded and nothing written.
 * It runs the scripts beside it only, never what lies in a project.
 */

import javafx.application.Platform
import javafx.event.EventHandler
import javafx.scene.control.Alert
import javafx.scene.control.CheckMenuItem
import javafx.scene.control.MenuItem
import qupath.lib.gui.QuPathGUI
import qupath.lib.gui.prefs.PathPrefs

def gui = QuPathGUI.getInstance()
if (gui == null) {
    println 'wsi_pipeline: there is no QuPath window'
    return
}
def chosen = System.getProperty('qupath.startup.script') ?: PathPrefs.startupScriptProperty().get()
def folder = chosen == null ? null : new File(chosen).getParentFile()
if (folder == null || !new File(folder, 'wsi_event_log.groovy').isFile()) {
    println 'wsi_pipeline: wsi_event_log.groovy must lie beside the startup script'
    return
}
def purpose = 'In projects of the review study, the time log notes which image is in front and when a region was drawn, ' +
    'changed, given a class or deleted. It measures whether suggestions save time.\n\n' +
    'It does not record the mouse, keys or the screen, and nothing about other projects. ' +
    'Everything stays in the folder "events" of the project, where you can read it.\n\n' +
    'It also keeps copies of your regions in the folder "snapshots", every five minutes while there are unsaved changes.\n\n' +
    'You can switch it off here at any time.'
def isOn = { System.getProperties().get('wsi_pipeline.event_log') != null }
def run = { String name -> gui.runScript(new File(folder, name), null) }

Platform.runLater({
    def menu = gui.getMenu('Extensions>Review study', true)
    if (!menu.getItems().isEmpty()) return
    def queue = new MenuItem('Review queue')
    queue.setOnAction({ event -> run('wsi_review.groovy') } as EventHandler)
    def log = new CheckMenuItem('Time log is on')
    log.setSelected(isOn())
    log.setOnAction({ event ->
        run('wsi_event_log.groovy')
        log.setSelected(isOn())
    } as EventHandler)
    def about = new MenuItem('What is recorded?')
    about.setOnAction({ event ->
        def alert = new Alert(Alert.AlertType.INFORMATION, purpose)
        alert.setTitle('Review study')
        alert.setHeaderText('What the time log is for')
        alert.initOwner(gui.getStage())
        alert.show()
    } as EventHandler)
    menu.getItems().addAll(queue, log, about)
    menu.setOnShowing({ event -> log.setSelected(isOn()) } as EventHandler)
    if (!isOn()) run('wsi_event_log.groovy')
    log.setSelected(isOn())
} as Runnable)
